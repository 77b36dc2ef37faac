#include "parallel/group/mpi/watch.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "core/base/narrow.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi/mpi_check.h"

namespace permafrost {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kListenEvery = std::chrono::milliseconds(20);
constexpr auto kGrace = std::chrono::seconds(2);           // for a computing rank to reach a collective
constexpr auto kHearing = std::chrono::seconds(5);         // for all ranks to hear
constexpr auto kWriting = std::chrono::milliseconds(700);  // for all ranks to write their line
constexpr auto kSending = std::chrono::milliseconds(100);  // for a notice to leave

constexpr int kFailed = 1;
constexpr int kHeard = 2;

}  // namespace

struct Watch::Notice {
  int32_t kind = 0;
  std::array<char, 1020> reason{};  // zero-terminated
};

Watch::Watch(MPI_Comm comm) : comm_(comm) {
  mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "the watch");
  mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "the watch");
  heard_.resize(static_cast<size_t>(size_), false);
  heard_[static_cast<size_t>(rank_)] = true;
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

bool Watch::all_heard() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(heard_, [](bool heard) { return heard; });
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
    heard_[static_cast<size_t>(status.MPI_SOURCE)] = true;
    if (status.MPI_TAG == kFailed && !failure_) {
      notice.reason.back() = '\0';
      failure_ = Failure{status.MPI_SOURCE, size_, static_cast<ErrorKind>(notice.kind), notice.reason.data()};
      failed_.store(true, std::memory_order_release);
    }
  }
}

void Watch::listen() {
  Clock::time_point known{};
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, kListenEvery, [this] { return stopping_; })) return;
    }
    if (!failed()) receive_all();
    if (!failed()) continue;
    if (known == Clock::time_point{}) known = Clock::now();
    if (Clock::now() - known > kGrace && !acknowledged_ && !announced_ && !aborting_) speak_for_stuck_rank();
  }
}

// The rank's own thread is in a long computation and cannot be unwound, so this thread says why it ends.
void Watch::speak_for_stuck_rank() {
  const Error error = failure()->error();
  std::fputs((failure_line(rank_, size_, error) + "\n").c_str(), stderr);
  std::fflush(stderr);
  abort(error);
}

void Watch::send_notice(int to, int tag, const Notice& notice) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Isend(&notice, sizeof notice, MPI_BYTE, to, tag, comm_, &request) != MPI_SUCCESS) return;
  const auto deadline = Clock::now() + kSending;
  int sent = 0;
  while (MPI_Test(&request, &sent, MPI_STATUS_IGNORE) == MPI_SUCCESS && !sent && Clock::now() < deadline)
    std::this_thread::yield();
}

void Watch::announce(const Error& reason) noexcept {
  if (announced_.exchange(true)) return;
  static Notice notice;  // outlives sends that do not leave in time
  notice.kind = static_cast<int32_t>(reason.kind());
  std::strncpy(notice.reason.data(), reason.what(), notice.reason.size() - 1);
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = Failure{rank_, size_, reason.kind(), reason.what()};
    failed_.store(true, std::memory_order_release);
  }
  if (failure()->rank != rank_) return acknowledge();  // another rank was first
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send_notice(r, kFailed, notice);
  const auto deadline = Clock::now() + kHearing;
  while (Clock::now() < deadline && !all_heard()) {
    receive_all();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// To all, not to the failing rank alone: two ranks may fail at once, and each waits for everybody.
void Watch::acknowledge() noexcept {
  if (acknowledged_.exchange(true)) return;
  static const Notice notice;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send_notice(r, kHeard, notice);
}

void Watch::abort(const Error& reason) noexcept {
  if (aborting_.exchange(true))
    while (true) std::this_thread::sleep_for(kHearing);  // another thread is ending this process
  announce(reason);
  const Failure cause = *failure();
  const int code = exit_code(cause.kind);
  if (cause.rank != rank_) {
    acknowledge();
    std::this_thread::sleep_for(kHearing + kWriting);  // the failing rank ends us before
    _exit(code);
  }
  if (size_ > 1) std::this_thread::sleep_for(kWriting);
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

}  // namespace permafrost
