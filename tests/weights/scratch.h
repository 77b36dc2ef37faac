#pragma once
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/weights/safetensors.h"
#include "tests/support/compare.h"

namespace permafrost::testing {

/// A fresh folder that goes away with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "permafrost-test-XXXXXX").string();
    if (!mkdtemp(pattern.data())) fail(ErrorKind::kStorage, "ScratchFolder: cannot make ", pattern);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  size_t files() const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path_)) ++count;
    return count;
  }

 private:
  std::string path_;
};

inline void write_text(const std::string& path, std::string_view text) {
  std::filesystem::remove(path);  // ext4 flushes a file that is truncated and rewritten; a new one is quick
  std::ofstream out(path, std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A safetensors file's bytes from any header text: length, text, data.
inline std::string raw_file(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

struct NamedTensor {
  std::string name;
  OwnedTensor tensor;
};

/// Writes these tensors, in this order.
inline void write_tensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                          const std::map<std::string, std::string>& metadata = {}) {
  std::vector<TensorDeclaration> declarations;
  for (const NamedTensor& t : tensors) declarations.push_back({t.name, t.tensor.view().spec()});
  SafetensorsWriter writer(path, declarations, metadata);
  for (const NamedTensor& t : tensors) writer.write_tensor(t.name, t.tensor);
  writer.finish();
}

}  // namespace permafrost::testing
