#include "launch/training/weight_files.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "core/weights/source.h"

namespace permafrost {

std::map<std::string, std::string> ends_of_tensors(const config::Config& config) {
  constexpr int64_t kEnd = 4096;
  std::map<std::string, std::string> ends;
  const auto& files = config.weights();
  for (const auto& [part, path] : {std::pair<std::string, std::string>("vision", files.vision()),
                                   {"text", files.text()},
                                   {"adapter", files.adapter()}}) {
    if (path.empty()) continue;
    const WeightSource source = WeightSource::open(path);
    for (const SourceTensor& tensor : source.tensors()) {
      const int64_t bytes = tensor.stored.bytes, end = std::min(bytes, kEnd);
      std::vector<std::byte> both(static_cast<size_t>(2 * end));
      source.read(tensor, 0, std::span(both).first(static_cast<size_t>(end)));
      source.read(tensor, bytes - end, std::span(both).last(static_cast<size_t>(end)));
      ends[part + " " + tensor.stored.name] =
          concat(tensor.stored.dtype_name, " ", tensor.stored.shape.str(), " ", sha256(both.data(), both.size()));
    }
  }
  return ends;
}

}  // namespace permafrost
