#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/weights/atomic_file.h"

namespace permafrost {

/// A regular file open for reading. `read` uses pread, so several threads may share one.
class InputFile {
 public:
  /// `expected`: what the file should be, for messages ("a safetensors file").
  /// Errors: kWeights when there is no such file or it is not a regular one; kStorage when the system refuses.
  InputFile(std::string path, const char* expected);

  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }
  /// Bytes [offset, offset + out.size()) of the file. Errors: kStorage, also when it has become shorter while open.
  void read(int64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  FileDescriptor file_;
  int64_t bytes_ = 0;
};

/// The first bytes of a file (fewer when it is shorter), by which kinds of files are told apart.
std::string start_of_file(const InputFile& file, int64_t bytes = 16);

}  // namespace permafrost
