#pragma once
#include <mpi.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "parallel/group/failure.h"
#include "parallel/group/process_watch.h"

namespace permafrost {

/// Listens, on a communicator and a thread of its own, for ranks that fail, and carries this rank's failure to the
/// others. The protocol as its users see it stands in parallel/group/fail_together.h. Two messages:
///   kFailed  failing rank -> everyone: kind and reason
///   kHeard   everyone else -> everyone: I know, and am about to write my line
/// A rank that dies without a word (kill -9, a crash) is seen by the ranks of its machine, which watch each other's
/// processes; they send kFailed in its name. The launcher then ends everybody: Open MPI's sends SIGTERM within a second
/// and SIGKILL a second after it, or as soon as processes end. So SIGTERM, where the program leaves it alone, first
/// waits for a moment: is it the echo of a rank that is gone? Then this rank says so and ends by itself; otherwise
/// SIGTERM does what it always does. A rank that has said all ends by itself at SIGTERM or when the failing rank is
/// gone; of several that fail at once the lowest calls MPI_Abort. Messages of collectives that were under way point at
/// memory that is freed while the stack unwinds, and any MPI call may still touch it. So all talking is done before a
/// collective throws (`announce`, `acknowledge`), and a process that knows of a failure makes no further MPI call but
/// MPI_Abort.
class Watch {
 public:
  /// `comm` is this class's alone and outlives it. Needs MPI_THREAD_MULTIPLE.
  explicit Watch(MPI_Comm comm);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  bool failed() const { return failed_.load(std::memory_order_acquire); }
  std::optional<Failure> failure() const;

  /// This rank failed, unless another did before: tells the others and waits until all have heard, or 5 s.
  void announce(const Error& reason) noexcept;
  /// Another rank failed: tells all that this one has heard. Once.
  void acknowledge() noexcept;
  /// Ends all ranks; see Group::abort.
  [[noreturn]] void abort(const Error& reason) noexcept;
  /// Stops listening; part of the orderly end.
  void stop();

 private:
  struct Notice;
  void listen();
  void receive_all();
  void watch_neighbours();
  std::optional<int> gone_within(std::chrono::milliseconds wait);
  void report_gone(int rank);
  void answer_termination();
  void speak_for_this_rank();
  void wait_for_the_end() noexcept;
  [[noreturn]] void end_by_itself() noexcept;
  void send_notice(int to, int tag, const Notice& notice) noexcept;
  bool all_heard() const;
  bool sees_all() const;  // every other rank is of this machine
  bool lower_rank_failed() const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> announced_ = false;
  std::atomic<bool> acknowledged_ = false;
  std::atomic<bool> aborting_ = false;
  mutable std::mutex mutex_;  // failure_, heard_, lowest_failed_, stopping_
  std::unique_ptr<ProcessWatch> processes_;
  std::mutex look_mutex_;  // one thread at a time looks at processes_
  std::optional<Failure> failure_;
  std::vector<bool> heard_;  // ranks known to know; those that fail by themselves count
  int lowest_failed_ = 0;    // of the other ranks that failed by themselves; size_: none
  bool stopping_ = false;
  std::atomic<bool> lost_ = false;  // the failing rank died without a word
  std::mutex receive_mutex_;        // one receiver at a time
  std::thread thread_;
};

}  // namespace permafrost
