#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/weights/pickle_reader.h"

namespace permafrost {

/// What a pickle of torch.save has for us, by the names that TorchArchive documents.
struct TorchContents {
  std::vector<std::pair<std::string, const PickleValue*>> tensors;
  std::map<std::string, std::string> metadata;
};

/// Errors: kWeights, message beginning with `path`: no tensors, containers nested too deep, an entry with more than a
/// million values (also by sharing), 8 million in all, keys of more than 4 KiB or that are no text, names of more than
/// 64 MiB together.
TorchContents torch_contents(const std::string& path, const Pickle& pickle);

}  // namespace permafrost
