#include "parallel/group/mpi/mpi_environment.h"

#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "parallel/group/mpi/mpi_check.h"
#include "parallel/group/mpi/plain_mpi_group.h"

namespace permafrost {
namespace {

void initialise() {
  int already = 0;
  mpi_check(MPI_Initialized(&already), "MPI_Initialized", "this process");
  if (already) fail(ErrorKind::kPeer, "mpi: MPI is initialised once per process; got a second time");
  int level = MPI_THREAD_SINGLE;
  mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread", "this process");
  if (level < MPI_THREAD_MULTIPLE)
    fail(ErrorKind::kPeer, "mpi: the MPI library must provide MPI_THREAD_MULTIPLE; got thread level ", level);
}

MPI_Comm duplicate_world(std::string_view what) {
  MPI_Comm made = MPI_COMM_NULL;
  mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &made), "MPI_Comm_dup", what);
  mpi_check(MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", what);
  return made;
}

constexpr int64_t kPage = 4096;
constexpr const char* kWindowFolder = "/dev/shm";  // where the MPI libraries of today keep the memory of windows

int64_t window_room() {
  struct statvfs room = {};
  if (statvfs(kWindowFolder, &room) != 0) return 0;
  return static_cast<int64_t>(room.f_bavail) * static_cast<int64_t>(room.f_frsize);
}

/// Takes all pages now; false where the file system has no room. A kernel that cannot (before Linux 5.14) says so, and
/// the check of free space is all there is.
bool take_pages(std::byte* data, int64_t bytes) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE
  constexpr int64_t kStep = int64_t{64} << 20;
  for (int64_t at = 0; at < bytes; at += kStep)
    while (madvise(data + at, narrow<size_t>(std::min(kStep, bytes - at)), kPopulateWrite) != 0) {
      if (errno == EINVAL) return true;
      if (errno != EINTR && errno != EAGAIN) return false;
    }
  return true;
}

/// Rank 0's word for all.
int64_t agreed(Group& group, int64_t value, std::string_view tag) {
  group.broadcast(flat(std::span(&value, 1)), 0, StreamView::caller(), tag);
  return value;
}

[[noreturn]] void no_room(std::string_view name, int64_t needed, int64_t available) {
  fail(ErrorKind::kStorage, "node memory '", name, "': an MPI window of ", needed, " bytes must fit ", kWindowFolder,
       "; got ", available, " bytes available there");
}

}  // namespace

MpiLibrary::MpiLibrary(const MpiOptions& options) : shared_(std::make_shared<MpiShared>()) {
  PERMAFROST_CHECK(options.chunk_bytes >= 64 && options.chunk_bytes <= std::numeric_limits<int>::max(),
                   "mpi: chunk_bytes must be in 64..2147483647; got ", options.chunk_bytes);
  initialise();
  shared_->options = options;
  watch_comm_ = duplicate_world("the watch");
  shared_->watch = std::make_unique<Watch>(watch_comm_);
  world_ = std::make_unique<MpiGroup>(shared_, duplicate_world("the world"));
}

MpiLibrary::~MpiLibrary() {
  if (!shared_->open) return;
  shared_->watch->stop();
  shared_->open = false;  // groups leave their communicators alone
  LOG(WARNING) << "mpi: left without close(); MPI is not finalised and the launcher will end the other ranks";
}

std::unique_ptr<Group> MpiLibrary::plain() {
  // MPI_Comm_dup cannot be interrupted: meet first, where a failed peer is noticed.
  world_->barrier(StreamView::caller(), "plain MPI");
  return std::make_unique<PlainMpiGroup>(shared_, duplicate_world("plain MPI"));
}

std::string MpiLibrary::library_version() const {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  mpi_check(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version", "this process");
  const std::string all(text.data(), static_cast<size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

std::byte* MpiLibrary::allocate_shared(Group& group, std::string_view name, int64_t bytes) {
  auto* ranks = dynamic_cast<MpiGroup*>(&group);
  PERMAFROST_CHECK(ranks != nullptr && bytes >= 0, "node memory '", name,
                   "': an MPI window needs a group of MPI and bytes >= 0; got ", bytes, " bytes",
                   ranks ? "" : " and another group");
  // One page more, because windows begin where the library likes; and whole pages, because access is set by page.
  const int64_t length = round_up(bytes, kPage) + kPage;
  const int64_t available = agreed(group, window_room(), "room for a window");
  if (available < length) no_room(name, length, available);
  Window made;
  mpi_check(MPI_Comm_dup(ranks->communicator(), &made.comm), "MPI_Comm_dup", name);
  std::byte* base = nullptr;
  const MPI_Aint own = group.rank() == 0 ? static_cast<MPI_Aint>(length) : 0;
  mpi_check(MPI_Win_allocate_shared(own, 1, MPI_INFO_NULL, made.comm, static_cast<void*>(&base), &made.window),
            "MPI_Win_allocate_shared", name);
  windows_.push_back(made);
  MPI_Aint size = 0;
  int unit = 0;
  mpi_check(MPI_Win_shared_query(made.window, 0, &size, &unit, static_cast<void*>(&base)), "MPI_Win_shared_query",
            name);
  // The offset is the same on all ranks: each maps whole pages of one file.
  base += (kPage - static_cast<int64_t>(reinterpret_cast<uintptr_t>(base) % kPage)) % kPage;
  const bool taken = group.rank() != 0 || take_pages(base, round_up(bytes, kPage));
  if (agreed(group, taken ? 1 : 0, "pages of a window") == 0) no_room(name, length, available);
  return base;
}

void MpiLibrary::close() {
  if (!shared_->open) return;
  world_->barrier(StreamView::caller(), "close");
  shared_->watch->stop();
  world_.reset();
  for (Window& made : windows_) {
    mpi_check(MPI_Win_free(&made.window), "MPI_Win_free", "node memory");
    mpi_check(MPI_Comm_free(&made.comm), "MPI_Comm_free", "node memory");
  }
  windows_.clear();
  mpi_check(MPI_Comm_free(&watch_comm_), "MPI_Comm_free", "the watch");
  shared_->open = false;
  mpi_check(MPI_Finalize(), "MPI_Finalize", "this process");
}

}  // namespace permafrost
