#include "parallel/group/node/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/base/narrow.h"
#include "parallel/group/node/free_memory.h"

namespace permafrost {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kHugeBytes = int64_t{2} << 20;

int64_t whole_pages(int64_t bytes) { return round_up(bytes, bytes >= kHugeBytes ? kHugeBytes : kPageBytes); }

[[noreturn]] void refuse(const std::string& name, const char* what, int64_t bytes) {
  fail(ErrorKind::kStorage, "node memory '", name, "': cannot ", what, " ", bytes, " bytes: ", std::strerror(errno));
}

/// A limit on the size of files also binds files that are memory. While one of these lives, the soft limit is the hard
/// one.
class WithoutFileSizeLimit {
 public:
  WithoutFileSizeLimit() {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit raised{before_.rlim_max, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &raised);
  }
  ~WithoutFileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }
  WithoutFileSizeLimit(const WithoutFileSizeLimit&) = delete;
  WithoutFileSizeLimit& operator=(const WithoutFileSizeLimit&) = delete;

  bool allows(int64_t bytes) const {
    return before_.rlim_max == RLIM_INFINITY || bytes <= static_cast<int64_t>(before_.rlim_max);
  }
  int64_t bytes() const { return static_cast<int64_t>(before_.rlim_max); }

 private:
  rlimit before_{};
};

}  // namespace

SharedMemory SharedMemory::alone(std::string name, int64_t bytes) {
  SharedMemory memory;
  memory.private_ = Buffer(name, bytes);
  memory.name_ = std::move(name);
  memory.data_ = memory.private_.data();
  memory.bytes_ = bytes;
  return memory;
}

SharedMemory SharedMemory::of_file(std::string name, int64_t bytes, int file) {
  SharedMemory memory;
  memory.name_ = std::move(name);
  memory.bytes_ = bytes;
  if (bytes == 0) return memory;
  const int64_t length = whole_pages(bytes);
  // Addresses first, with room to align; the file then takes their place.
  memory.mapping_bytes_ = narrow<size_t>(length + (bytes >= kHugeBytes ? kHugeBytes : 0));
  void* place = mmap(nullptr, memory.mapping_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) refuse(memory.name_, "find addresses for", bytes);
  memory.mapping_ = place;
  const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(place));
  auto* aligned = static_cast<std::byte*>(place) + (bytes >= kHugeBytes ? round_up(address, kHugeBytes) - address : 0);
  if (mmap(aligned, narrow<size_t>(length), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED)
    refuse(memory.name_, "map", bytes);
  memory.data_ = aligned;
  return memory;
}

SharedMemory SharedMemory::of_window(std::string name, int64_t bytes, std::byte* data) {
  SharedMemory memory;
  memory.name_ = std::move(name);
  memory.bytes_ = bytes;
  memory.data_ = data;
  return memory;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept { *this = std::move(other); }

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  if (this == &other) return *this;
  release();
  name_ = std::move(other.name_);
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  private_ = std::move(other.private_);
  mapping_ = std::exchange(other.mapping_, nullptr);
  mapping_bytes_ = std::exchange(other.mapping_bytes_, 0);
  registry_ = std::move(other.registry_);
  piece_ = std::exchange(other.piece_, 0);
  return *this;
}

void SharedMemory::register_as(uint64_t piece, std::shared_ptr<PieceRegistry> registry) {
  registry->add(piece, data_, bytes_);
  registry_ = std::move(registry);
  piece_ = piece;
}

void SharedMemory::protect() {
  if (bytes_ == 0) return;
  if (mprotect(data_, narrow<size_t>(round_up(bytes_, kPageBytes)), PROT_READ) != 0) refuse(name_, "protect", bytes_);
}

void SharedMemory::release() noexcept {
  if (registry_) registry_->remove(piece_);
  registry_.reset();
  if (mapping_) munmap(mapping_, mapping_bytes_);
  mapping_ = nullptr;
}

int make_memory_file(const std::string& name, int64_t bytes) {
  const int64_t length = whole_pages(bytes);
  const int64_t available = free_memory_bytes();
  if (length > available)
    fail(ErrorKind::kStorage, "node memory '", name, "': ", bytes, " bytes needed; got ", available, " available");
  const WithoutFileSizeLimit limit;
  if (!limit.allows(length))  // the system would end the process
    fail(ErrorKind::kStorage, "node memory '", name, "': ", bytes, " bytes needed; got a limit of ", limit.bytes(),
         " bytes for files (ulimit -H -f)");
  const int file = memfd_create(("permafrost " + name).substr(0, 200).c_str(), MFD_CLOEXEC);
  if (file < 0) refuse(name, "make a memory file of", bytes);
  if (ftruncate(file, length) == 0) {
    int result = 0;
    while ((result = fallocate(file, 0, 0, length)) != 0 && errno == EINTR) {
    }
    if (result == 0) return file;
  }
  const int reason = errno;
  close(file);
  fail(ErrorKind::kStorage, "node memory '", name, "': ", bytes, " bytes needed; got ", std::strerror(reason), " with ",
       free_memory_bytes(), " available");
}

int64_t inode_of(int file) {
  struct stat status = {};
  return fstat(file, &status) == 0 ? static_cast<int64_t>(status.st_ino) : -1;
}

int open_memory_file(int64_t pid, int64_t file, int64_t inode) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%lld/fd/%lld", static_cast<long long>(pid),
                static_cast<long long>(file));
  const int opened = open(path.data(), O_RDWR | O_CLOEXEC);
  // Only files that are memory have seals; another's file may have the inode in another namespace.
  if (opened < 0 || (inode_of(opened) == inode && fcntl(opened, F_GET_SEALS) >= 0)) return opened;
  close(opened);
  errno = ENOENT;
  return -1;
}

}  // namespace permafrost
