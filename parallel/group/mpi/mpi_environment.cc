#include "parallel/group/mpi/mpi_environment.h"

#include <glog/logging.h>

#include <array>
#include <limits>

#include "core/base/check.h"
#include "parallel/group/mpi/mpi_check.h"

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

std::string MpiLibrary::library_version() const {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  mpi_check(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version", "this process");
  const std::string all(text.data(), static_cast<size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

void MpiLibrary::close() {
  if (!shared_->open) return;
  world_->barrier(StreamView::caller(), "close");
  shared_->watch->stop();
  world_.reset();
  mpi_check(MPI_Comm_free(&watch_comm_), "MPI_Comm_free", "the watch");
  shared_->open = false;
  mpi_check(MPI_Finalize(), "MPI_Finalize", "this process");
}

}  // namespace permafrost
