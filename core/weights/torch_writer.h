#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/weights/safetensors.h"

namespace permafrost {

/// Writes a checkpoint as torch.save does: a zip archive of a dict with `model`, an OrderedDict of tensors, and further
/// plain values; torch.load(FILE, weights_only=True) reads it. Front to back like SafetensorsWriter: everything is
/// declared first, then the data comes in that order, in pieces of any size. The file appears at `finish`. The same
/// declarations, values and data give the same bytes.
/// Errors: kInvalidArgument for a name twice, a dtype that torch's storages lack, too much or too little data; kWeights
/// for 4 GiB or 65535 members and more, which would need zip64; kStorage from writing.
class TorchWriter {
 public:
  /// `others`: further entries of the dict, an object; its numbers, texts, lists and objects become Python's.
  TorchWriter(const std::string& path, std::vector<TensorDeclaration> tensors, const Json& others);

  void write(std::span<const std::byte> data);
  void finish();

 private:
  struct Written {
    std::string name;
    uint32_t crc32 = 0;
    int64_t bytes = 0, header_begin = 0;
  };
  void begin_member(const std::string& name);
  void add_bytes(std::span<const std::byte> data);
  void end_member();
  void write_member(const std::string& name, const std::string& data);
  void end_full_tensors();

  std::string path_;
  std::vector<TensorDeclaration> tensors_;
  AtomicFile file_;
  int64_t file_bytes_ = 0;  // that it will have
  std::vector<Written> members_;
  size_t next_tensor_ = 0;  // whose data comes now
};

}  // namespace permafrost
