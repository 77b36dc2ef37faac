#pragma once
#include <filesystem>
#include <string>

namespace permafrost {

/// A folder name of this process's own, below the system's folder for temporary files, which goes with what is in it.
/// The folder itself is made by whoever writes there.
class TemporaryFolder {
 public:
  /// name: of what writes there, such as "bench-memory-0".
  explicit TemporaryFolder(const std::string& name);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Of all files in it, as their directory says.
  int64_t file_bytes() const;

 private:
  std::filesystem::path path_;
};

}  // namespace permafrost
