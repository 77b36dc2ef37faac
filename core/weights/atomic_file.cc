#include "core/weights/atomic_file.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

namespace {
[[noreturn]] void fail_storage(const char* action, const std::string& path, int error) {
  fail(ErrorKind::kStorage, action, " ", path, ": ", std::strerror(error));
}

std::string temporary_name(const std::string& path) {
  static std::atomic<uint64_t> counter{0};  // two writers of one process must not share a name
  return concat(path, ".tmp-", getpid(), "-", counter.fetch_add(1));
}

void sync_file(int fd, const std::string& path) {
  while (fsync(fd) != 0) {
    if (errno == EINTR) continue;
    fail_storage("cannot bring to disk", path, errno);
  }
}
}  // namespace

void FileDescriptorTraits::close(Type fd) noexcept { ::close(fd); }

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  std::string name = temporary_name(path_);
  file_ = FileDescriptor(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file_) fail_storage("cannot create", name, errno);
  temporary_ = std::move(name);
}

AtomicFile::~AtomicFile() {
  file_.reset();
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  PERMAFROST_CHECK(file_, "AtomicFile::write: ", path_, " is already committed");
  const auto* from = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t count = ::write(file_.get(), from, bytes);
    if (count < 0) {
      if (errno == EINTR) continue;
      fail_storage("cannot write", path_, errno);
    }
    from += count;
    bytes -= static_cast<size_t>(count);
    written_bytes_ += count;
  }
}

void AtomicFile::commit() {
  PERMAFROST_CHECK(file_, "AtomicFile::commit: ", path_, " is already committed");
  sync_file(file_.get(), path_);
  if (::close(file_.release()) != 0) fail_storage("cannot close", path_, errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    fail_storage("cannot rename the finished file to", path_, errno);
  temporary_.clear();
  sync_directory(directory_of(path_));
}

void write_file_atomically(const std::string& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents.data(), contents.size());
  file.commit();
}

void sync_directory(const std::string& directory) {
  const FileDescriptor handle(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!handle) fail_storage("cannot open folder", directory, errno);
  sync_file(handle.get(), directory);
}

std::string directory_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void require_free_space(const std::string& directory, int64_t bytes) {
  struct statvfs info {};
  if (statvfs(directory.c_str(), &info) != 0) fail_storage("cannot ask for the free space of", directory, errno);
  const uint64_t free_bytes = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (std::cmp_less(free_bytes, bytes))
    fail(ErrorKind::kStorage, "not enough room in ", directory, ": expected ", bytes, " bytes free; got ", free_bytes);
}

}  // namespace permafrost
