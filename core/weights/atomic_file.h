#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/handle.h"

namespace permafrost {

/// Traits of a POSIX file descriptor for Handle.
struct FileDescriptorTraits {
  using Type = int;
  static Type null() { return -1; }
  static void close(Type fd) noexcept;
};
using FileDescriptor = Handle<FileDescriptorTraits>;

/// A file that appears under its name only when it is complete. Bytes go to `<path>.tmp-<process>-<number>` beside
/// it; `commit` brings them to the disk (fsync of file and directory) and renames. Until then, and after any
/// failure, whatever stood under `path` before is untouched; the temporary file is removed by the destructor.
/// Errors: kStorage with path and the system's reason (disk full, permissions, missing folder).
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends.
  void write(const void* data, size_t bytes);
  int64_t written_bytes() const { return written_bytes_; }
  /// Once; nothing may be written afterwards.
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  FileDescriptor file_;
  int64_t written_bytes_ = 0;
};

/// The whole of a small file at once.
void write_file_atomically(const std::string& path, std::string_view contents);

/// Makes names created, renamed or removed in `directory` survive a power cut. Errors: kStorage.
void sync_directory(const std::string& directory);

/// Folder part of a path, "." when there is none.
std::string directory_of(const std::string& path);

/// Throws kStorage naming both numbers when the file system of `directory` has less room than `bytes` for this user.
void require_free_space(const std::string& directory, int64_t bytes);

}  // namespace permafrost
