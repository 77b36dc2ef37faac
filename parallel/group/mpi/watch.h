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

/// Listens, on a communicator of its own and a thread of its own, for ranks that fail, and carries this rank's failure
/// to the others. The protocol is described in parallel/group/fail_together.h. Two messages:
///   kFailed    failing rank -> everyone: kind and reason
///   kReported  everyone -> failing rank: my line is written, you may end us
class Watch {
 public:
  /// `comm` is this class's alone and outlives it. Needs MPI_THREAD_MULTIPLE.
  explicit Watch(MPI_Comm comm);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  bool failed() const { return failed_.load(std::memory_order_acquire); }
  std::optional<Failure> failure() const;
  /// Ends all ranks; see Group::abort.
  [[noreturn]] void abort(const Error& reason) noexcept;
  /// Stops listening; part of the orderly end.
  void stop();

 private:
  struct Notice;
  void listen();
  void receive_all();
  void speak_for_stuck_rank();
  void send_notice(int to, int tag, const Notice& notice);
  bool all_reported() const;

  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> aborting_ = false;
  mutable std::mutex mutex_;  // failure_, reported_, stopping_
  std::condition_variable wake_;
  std::optional<Failure> failure_;
  std::vector<bool> reported_;  // ranks known to have written their line
  bool stopping_ = false;
  std::mutex receive_mutex_;  // one receiver at a time: the listener, or the thread in abort
  std::thread thread_;
};

}  // namespace permafrost
