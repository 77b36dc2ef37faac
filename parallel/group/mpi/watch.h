#pragma once
#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "parallel/group/failure.h"

namespace permafrost {

/// Listens, on a communicator and a thread of its own, for ranks that fail, and carries this rank's failure to the
/// others. The protocol as its users see it stands in parallel/group/fail_together.h. Two messages:
///   kFailed  failing rank -> everyone: kind and reason
///   kHeard   everyone else -> everyone: I know, and am about to write my line
/// Messages of collectives that were under way point at memory that is freed while the stack unwinds, and any MPI call
/// may still touch it. So all talking is done before a collective throws (`announce`, `acknowledge`), and a process
/// that knows of a failure makes no further MPI call but MPI_Abort.
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
  void speak_for_stuck_rank();
  void send_notice(int to, int tag, const Notice& notice) noexcept;
  bool all_heard() const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> announced_ = false;
  std::atomic<bool> acknowledged_ = false;
  std::atomic<bool> aborting_ = false;
  mutable std::mutex mutex_;  // failure_, heard_, stopping_
  std::condition_variable wake_;
  std::optional<Failure> failure_;
  std::vector<bool> heard_;  // ranks known to know; those that fail by themselves count
  bool stopping_ = false;
  std::mutex receive_mutex_;  // one receiver at a time
  std::thread thread_;
};

}  // namespace permafrost
