#include "parallel/group/mpi/watch.h"

#include <signal.h>
#include <sys/stat.h>
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
constexpr std::chrono::milliseconds kGrace{2000};          // for a computing rank to reach a collective
constexpr auto kHearing = std::chrono::seconds(5);         // for all ranks to hear
constexpr auto kWriting = std::chrono::milliseconds(700);  // for all ranks to write their line
constexpr std::chrono::milliseconds kGraceForLost{150};    // the launcher kills a second after a loss
constexpr std::chrono::milliseconds kGraceForUnwinding{500};
constexpr auto kEcho = std::chrono::milliseconds(100);           // from a rank's end to SIGTERM for the others
constexpr auto kSending = std::chrono::milliseconds(100);        // for a notice to leave
constexpr auto kLaunchersTurn = std::chrono::milliseconds(500);  // behind a line, for SIGTERM to come
constexpr auto kLauncher = std::chrono::milliseconds(50);  // from the failing rank's end to the launcher's next wait

constexpr int kFailed = 1;
constexpr int kHeard = 2;

std::atomic<bool> termination = false;
std::atomic<ProcessWatch*> woken_by_termination = nullptr;

void note_termination(int /*signal*/) {
  termination.store(true);
  if (ProcessWatch* watch = woken_by_termination.load()) watch->wake();
}

bool terminates_by_default() {
  struct sigaction action = {};
  return sigaction(SIGTERM, nullptr, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL;
}

bool handled_here() {
  struct sigaction action = {};
  return sigaction(SIGTERM, nullptr, &action) == 0 && !(action.sa_flags & SA_SIGINFO) &&
         action.sa_handler == note_termination;
}

void handle_termination(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
}

/// A process id means something to those of the same machine and the same namespace of ids.
struct Neighbour {
  int64_t rank = 0;
  int64_t pid = 0;
  int64_t space = 0;
};

}  // namespace

struct Watch::Notice {
  int32_t kind = 0;
  int32_t rank = 0;                 // that failed
  std::array<char, 1016> reason{};  // zero-terminated
};

Watch::Watch(MPI_Comm comm) : comm_(comm) {
  mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank", "the watch");
  mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size", "the watch");
  lowest_failed_ = size_;
  heard_.resize(static_cast<size_t>(size_), false);
  heard_[static_cast<size_t>(rank_)] = true;
  if (size_ == 1) return;
  watch_neighbours();
  if (terminates_by_default()) {
    woken_by_termination = processes_.get();
    handle_termination(note_termination);
  }
  thread_ = std::thread([this] { listen(); });
}

void Watch::watch_neighbours() {
  MPI_Comm node = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node), "MPI_Comm_split_type",
            "the watch");
  int count = 0;
  mpi_check(MPI_Comm_size(node, &count), "MPI_Comm_size", "the watch");
  struct stat space = {};
  stat("/proc/self/ns/pid", &space);
  const Neighbour self{rank_, getpid(), static_cast<int64_t>(space.st_ino)};
  std::vector<Neighbour> all(static_cast<size_t>(count));
  mpi_check(MPI_Allgather(&self, sizeof self, MPI_BYTE, all.data(), sizeof self, MPI_BYTE, node), "MPI_Allgather",
            "the watch");
  mpi_check(MPI_Comm_free(&node), "MPI_Comm_free", "the watch");
  std::vector<int64_t> pids(static_cast<size_t>(size_), 0);
  for (const Neighbour& other : all)
    if (other.rank != rank_ && other.space == self.space) pids[static_cast<size_t>(other.rank)] = other.pid;
  processes_ = std::make_unique<ProcessWatch>(pids);
}

Watch::~Watch() { stop(); }

void Watch::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (!thread_.joinable()) return;
  processes_->wake();
  thread_.join();
  if (handled_here()) handle_termination(SIG_DFL);
  woken_by_termination = nullptr;
}

std::optional<Failure> Watch::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

bool Watch::all_heard() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(heard_, [](bool heard) { return heard; });
}

bool Watch::sees_all() const {
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && processes_->pid(r) == 0) return false;
  return true;
}

bool Watch::lower_rank_failed() const {
  const std::lock_guard lock(mutex_);
  return lowest_failed_ < rank_;
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
    if (status.MPI_TAG == kFailed && notice.rank == status.MPI_SOURCE)
      lowest_failed_ = std::min(lowest_failed_, status.MPI_SOURCE);
    if (status.MPI_TAG == kFailed && !failure_) {
      notice.reason.back() = '\0';
      failure_ = Failure{notice.rank, size_, static_cast<ErrorKind>(notice.kind), notice.reason.data()};
      heard_[static_cast<size_t>(notice.rank)] = true;
      lost_ = notice.rank != status.MPI_SOURCE;
      failed_.store(true, std::memory_order_release);
    }
  }
}

void Watch::listen() {
  Clock::time_point known{};  // of the failure, or of the unwinding behind it
  bool seen_unwinding = false;
  while (true) {
    std::optional<int> gone;
    if (failed())
      std::this_thread::sleep_for(kListenEvery);
    else
      gone = gone_within(kListenEvery);
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    if (!failed()) receive_all();  // first: a rank that failed in words ends soon after
    if (!failed() && gone) report_gone(*gone);
    if (!failed() && termination) answer_termination();
    if (!failed()) continue;
    // A rank that has acknowledged is unwinding, as a rule; but its collective may have failed on another thread.
    const bool unwinding = acknowledged_;
    if (known == Clock::time_point{} || unwinding != seen_unwinding) known = Clock::now();
    seen_unwinding = unwinding;
    const bool answered = aborting_ || (!lost_ && announced_);
    const Clock::duration grace = unwinding ? kGraceForUnwinding : lost_ ? kGraceForLost : kGrace;
    if (!answered && Clock::now() - known > grace) speak_for_this_rank();
  }
}

void Watch::report_gone(int rank) {
  static Notice notice;  // outlives sends that do not leave in time
  {
    const std::lock_guard lock(mutex_);
    const std::string reason = concat("its process ", processes_->pid(rank), " is gone (killed, or crashed)");
    failure_ = Failure{rank, size_, ErrorKind::kPeer, reason};
    heard_[static_cast<size_t>(rank)] = true;
    lost_ = true;
    notice.kind = static_cast<int32_t>(ErrorKind::kPeer);
    notice.rank = rank;
    std::strncpy(notice.reason.data(), reason.c_str(), notice.reason.size() - 1);
    failed_.store(true, std::memory_order_release);
  }
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && r != rank) send_notice(r, kFailed, notice);
}

std::optional<int> Watch::gone_within(std::chrono::milliseconds wait) {
  const std::lock_guard looking(look_mutex_);
  return processes_->gone(wait);
}

void Watch::answer_termination() {
  if (const auto gone = gone_within(kEcho)) return report_gone(*gone);
  // Nobody was. Who ends in the following moment was told to, as this rank is, and is no cause.
  std::this_thread::sleep_for(kEcho);
  handle_termination(SIG_DFL);
  kill(getpid(), SIGTERM);
}

// The rank's own thread is in a long computation, or would be late. It cannot be unwound, so this thread says why the
// rank ends.
void Watch::speak_for_this_rank() {
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
  notice.rank = rank_;
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
  const int failing = lost_ ? failure()->rank : -1;  // who is gone takes no messages
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && r != failing) send_notice(r, kHeard, notice);
}

// The failing rank's MPI_Abort has the launcher end the others, and Open MPI's takes up to two seconds for it: it waits
// for one after SIGCONT and for one after SIGTERM, unless one of its processes ends meanwhile. So a rank that has said
// all goes by itself once the failing one is gone, which it is when the launcher has heard of it, or once SIGTERM came.
// Returns when neither has come in time.
void Watch::wait_for_the_end() noexcept {
  const auto deadline = Clock::now() + kHearing + kWriting;
  while (Clock::now() < deadline)
    if (termination || gone_within(kListenEvery)) end_by_itself();
}

void Watch::end_by_itself() noexcept {
  std::this_thread::sleep_for(kLauncher);
  _exit(exit_code(failure()->kind));
}

void Watch::abort(const Error& reason) noexcept {
  if (aborting_.exchange(true))
    while (true) std::this_thread::sleep_for(kHearing);  // another thread is ending this process
  announce(reason);
  const Failure cause = *failure();
  const int code = exit_code(cause.kind);
  if (cause.rank != rank_) {
    acknowledge();
    if (lost_) {
      // The launcher noticed too, and MPI_Abort would wait for it. It is for ranks of other machines.
      const auto deadline = Clock::now() + kWriting + kLaunchersTurn;
      while (Clock::now() < deadline && !termination) std::this_thread::sleep_for(kListenEvery);
      if (termination || sees_all()) end_by_itself();
      MPI_Abort(MPI_COMM_WORLD, code);
    }
    wait_for_the_end();
    _exit(code);
  }
  if (size_ > 1) std::this_thread::sleep_for(kWriting);
  if (lower_rank_failed()) wait_for_the_end();  // of several that failed at once, one has the launcher end the others
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

}  // namespace permafrost
