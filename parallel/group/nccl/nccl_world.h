#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "parallel/group/nccl/nccl_group.h"

namespace permafrost {

class NcclCommunicator;

/// What a group and those split from it have in common: the first failure, and a thread that looks after their
/// communicators. When NCCL, the host group or a clock says that something is wrong, it aborts all of them, which frees
/// the streams that wait for other ranks.
class NcclWorld {
 public:
  NcclWorld(Group& host, const NcclOptions& options, Device device);
  ~NcclWorld();
  NcclWorld(const NcclWorld&) = delete;
  NcclWorld& operator=(const NcclWorld&) = delete;

  const NcclOptions options;
  const Device device;

  void add(std::shared_ptr<NcclCommunicator> communicator);
  void remove(const NcclCommunicator& communicator);

  /// The first error, of this rank or, by the host group's word, of another. Does not wait.
  std::optional<Error> failure() const;
  /// Keeps `error` unless there is one, has all communicators aborted, and returns the one that is kept.
  Error fail_with(const Error& error);
  /// Of this rank: tells the others.
  void abort(const Error& reason) noexcept;

 private:
  void watch();
  Group& host_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  mutable std::optional<Error> failure_;
  std::vector<std::shared_ptr<NcclCommunicator>> communicators_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace permafrost
