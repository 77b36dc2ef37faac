#include "parallel/group/mpi/watch.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <unistd.h>

#include "core/base/narrow.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi/mpi_check.h"

namespace permafrost {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kListenEvery = std::chrono::milliseconds(20);
constexpr auto kGrace = std::chrono::seconds(2);   // for a computing rank to reach a collective and unwind
constexpr auto kLinger = std::chrono::seconds(5);  // for all ranks to report

constexpr int kFailed = 1;
constexpr int kReported = 2;

}  // namespace

struct Watch::Notice {
  int32_t kind = 0;
  std::array<char, 1020> reason{};  // zero-terminated
};

Watch::Watch(MPI_Comm comm) : comm_(comm) {
  mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "the watch");
  mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "the watch");
  reported_.resize(static_cast<size_t>(size_), false);
  reported_[static_cast<size_t>(rank_)] = true;
  if (size_ > 1) thread_ = std::thread([this] { listen(); });
}

Watch::~Watch() { stop(); }

void Watch::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::optional<Failure> Watch::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

bool Watch::all_reported() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(reported_, [](bool reported) { return reported; });
}

void Watch::receive_all() {
  const std::lock_guard receiving(receive_mutex_);
  while (true) {
    int found = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, &status) != MPI_SUCCESS || !found) return;
    Notice notice;
    if (MPI_Recv(&notice, sizeof notice, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, comm_, MPI_STATUS_IGNORE) !=
        MPI_SUCCESS)
      return;
    const std::lock_guard lock(mutex_);
    reported_[static_cast<size_t>(status.MPI_SOURCE)] = true;
    if (status.MPI_TAG == kFailed && !failure_) {
      notice.reason.back() = '\0';
      failure_ = Failure{status.MPI_SOURCE, size_, static_cast<ErrorKind>(notice.kind), notice.reason.data()};
      failed_.store(true, std::memory_order_release);
    }
  }
}

void Watch::listen() {
  Clock::time_point heard{};
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, kListenEvery, [this] { return stopping_; })) return;
    }
    receive_all();
    if (!failed()) continue;
    if (heard == Clock::time_point{}) heard = Clock::now();
    if (Clock::now() - heard > kGrace && !aborting_) speak_for_stuck_rank();
  }
}

// The rank's own thread is in a long computation: it cannot be unwound, so this thread says why it ends.
void Watch::speak_for_stuck_rank() {
  const Error error = failure()->error();
  std::fputs((failure_line(rank_, size_, error) + "\n").c_str(), stderr);
  std::fflush(stderr);
  abort(error);
}

void Watch::send_notice(int to, int tag, const Notice& notice) {
  MPI_Request request = MPI_REQUEST_NULL;  // small messages leave at once; nobody waits for them
  if (MPI_Isend(&notice, sizeof notice, MPI_BYTE, to, tag, comm_, &request) == MPI_SUCCESS) MPI_Request_free(&request);
}

void Watch::abort(const Error& reason) noexcept {
  if (aborting_.exchange(true))
    while (true) std::this_thread::sleep_for(kLinger);  // another thread is ending this process
  static Notice notice;                                 // outlives the sends
  notice.kind = static_cast<int32_t>(reason.kind());
  std::strncpy(notice.reason.data(), reason.what(), notice.reason.size() - 1);
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = Failure{rank_, size_, reason.kind(), reason.what()};
    failed_.store(true, std::memory_order_release);
  }
  const Failure cause = *failure();
  const bool first = cause.rank == rank_;
  for (int r = 0; r < size_; ++r)
    if (first ? r != rank_ : r == cause.rank) send_notice(r, first ? kFailed : kReported, notice);
  // The first failing rank ends everything once all have reported; the others wait for that.
  const auto deadline = Clock::now() + kLinger;
  while (Clock::now() < deadline && !(first && all_reported())) {
    receive_all();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const int code = exit_code(cause.kind);
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

}  // namespace permafrost
