#pragma once
#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "parallel/group/call.h"
#include "parallel/group/nccl/nccl_api.h"
#include "parallel/group/nccl/nccl_world.h"

namespace permafrost {

/// One communicator of NCCL, non-blocking: every wait has a time limit, and ends when the world fails. One thread calls
/// it at a time; look() and abort() come from the world's watching thread as well.
class NcclCommunicator {
 public:
  using Clock = std::chrono::steady_clock;

  NcclCommunicator(NcclWorld& world, std::string name, int rank, int size);
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  /// Joins the ranks that have the same id. Errors: kTimeout, kPeer, and the failure of the world; not that of the
  /// world yet, since other ranks may have something better to say.
  void join(const ncclUniqueId& id, bool copy_engines);

  /// Gives the calls that enqueue(communicator) makes to the stream, as one launch. Errors: the failure of the world,
  /// which what goes wrong here becomes.
  template <typename Enqueue>
  void launch(const Call& call, cudaStream_t stream, const Enqueue& enqueue) {
    Tracked* tracked = begin(call, stream);
    start(call, [&](ncclComm_t comm) {
      ncclResult_t result = api_.GroupStart();
      if (result == ncclSuccess) {
        result = enqueue(comm);
        const ncclResult_t ended = api_.GroupEnd();  // also behind an error, or the next launch would join this one
        if (!gone_wrong(result)) result = ended;
      }
      return result;
    });
    end(tracked, stream);
  }

  /// A window over [memory, memory + bytes), of all ranks alike. False: NCCL took it and made none.
  bool register_window(void* memory, int64_t bytes);

  /// What went wrong with the communicator, or with a call that the device has reached but not done within the time
  /// limit. Does not wait.
  std::optional<Error> look();
  /// Ends whatever runs, here and on the device. Returns within the limit for closing.
  void abort() noexcept;
  /// The orderly end: waits for all ranks, within the limit for closing; behind that, and in a world that failed,
  /// abort.
  void close() noexcept;

  const NcclApi& api() const { return api_; }
  static bool gone_wrong(ncclResult_t result) { return result != ncclSuccess && result != ncclInProgress; }

 private:
  /// A call that was given to a stream.
  struct Tracked {
    cudaEvent_t before = nullptr, after = nullptr;
    std::array<char, 120> name{};
    std::optional<Clock::time_point> reached;  ///< when the device was seen to be there
    bool complete = false;                     ///< `after` is recorded
  };
  struct Window {
    ncclWindow_t handle = nullptr;
  };

  Tracked* begin(const Call& call, cudaStream_t stream);
  void end(Tracked* tracked, cudaStream_t stream);
  bool retire_locked();
  std::optional<Error> overdue();
  template <typename Body>
  void start(const Call& call, const Body& body);
  void settle(const Call& call);
  /// Polls until nothing is in progress. Errors: as join.
  void wait_until_ready(const std::string& who, std::chrono::milliseconds limit);
  Error error_of(const std::string& who, ncclResult_t result) const;
  Error gone(const std::string& who) const;
  std::string whom() const;
  bool finalize(ncclComm_t comm) noexcept;
  void abort(ncclComm_t comm) noexcept;
  ncclComm_t take() noexcept;

  NcclWorld& world_;
  const NcclApi& api_;
  std::string name_;
  int rank_;
  int size_;
  std::mutex mutex_;  ///< around every call of NCCL with comm_; nobody waits under it
  ncclComm_t comm_ = nullptr;
  std::deque<Window> windows_;  ///< NCCL writes a handle when it is done, so they stay where they are

  std::mutex calls_mutex_;
  std::array<Tracked, 256> calls_;  ///< a ring: given to streams and not seen done
  size_t oldest_ = 0, newest_ = 0;  ///< places ever used
};

template <typename Body>
void NcclCommunicator::start(const Call& call, const Body& body) {
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    if (!comm_) throw gone(call.name());
    result = body(comm_);
    if (gone_wrong(result)) throw world_.fail_with(error_of(call.name(), result));
  }
  settle(call);
}

}  // namespace permafrost
