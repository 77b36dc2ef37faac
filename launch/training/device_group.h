#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/device/buffer.h"
#include "launch/runtime.h"
#include "parallel/group/nccl/nccl_group.h"
#include "parallel/plan/plan.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

namespace config {
class Parallel;
}

/// Memory where programs run, which on CPU the other ranks of the node read in place.
class DeviceMemory {
 public:
  /// Collective over `node`.
  DeviceMemory(std::string name, int64_t bytes, NodeGroup& node);
  explicit DeviceMemory(Buffer memory) : bytes_(memory.bytes()), device_(std::move(memory)) {}
  std::byte* data() const { return device_.data() ? device_.data() : shared_->data(); }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_.device(); }

 private:
  int64_t bytes_;
  Buffer device_;
  std::optional<ReadableMemory> shared_;
};

/// How the ranks of a run exchange what lies where programs run (parallel.collectives). Collective; the same answer on
/// all of them, but for the words.
struct DeviceExchange {
  bool nccl = false;
  std::string reason;    ///< for going through hosts, in words; "" on CPU and on one rank
  std::string cublaslt;  ///< the version in use, which all ranks have
};
/// Errors, on all ranks: kConfig where their GPUs or libraries differ, or NCCL was asked for and cannot be used.
DeviceExchange decide_exchange(const config::Parallel& parallel, Runtime& runtime);

/// The group that exchanges what lies where programs run: the world's on CPU; on CUDA NCCL's, or one over the world's,
/// through staging in host memory that the ranks of the node read in place.
class DeviceGroup {
 public:
  /// largest_bytes: of what is exchanged by one call. Collective.
  DeviceGroup(const config::Parallel& parallel, Runtime& runtime, int64_t largest_bytes);
  Group& operator*() const { return own_ ? *own_ : world_; }
  Group* operator->() const { return &**this; }
  const DeviceExchange& exchange() const { return exchange_; }
  /// Memory of what it exchanges, registered where that helps; the group's, for as long as it lives. Collective.
  const DeviceMemory& allocate(std::string name, int64_t bytes);
  /// Lines for the log: how, and what is registered. Nothing on CPU and on one rank.
  std::vector<std::string> notes() const;
  /// What came from other devices so far, without passing through the host.
  int64_t moved_bytes() const { return moved_->total(); }
  /// What the staging takes of the host's memory.
  std::span<const std::byte> staging() const {
    if (!staging_) return {};
    return {staging_->data(), static_cast<size_t>(staging_->bytes())};
  }

 private:
  Runtime& runtime_;
  Group& world_;
  DeviceExchange exchange_;
  std::unique_ptr<MovedBytes> moved_ = std::make_unique<MovedBytes>();
  std::optional<ReadableMemory> staging_;
  PinnedMemory pinned_;
  std::deque<DeviceMemory> memories_;  // gone after the group that they are registered with
  std::unique_ptr<Group> own_;
  NcclGroup* nccl_ = nullptr;  // own_, if it is one
};

/// Of the memory that devices gather frozen weights into and from: such as can be registered where NCCL does it.
/// Collective.
GatherAllocator gather_allocator(const config::Parallel& parallel, const Plan& plan, Runtime& runtime);
/// For gathers of frozen weights beside what computes, with that memory registered where that helps; null where there
/// are none. `memory` outlives it. Collective.
std::unique_ptr<Group> make_gather_group(const config::Parallel& parallel, const Plan& plan, Runtime& runtime,
                                         const StepMemory& memory);
/// For the log: as DeviceGroup::notes, of a group that make_gather_group made.
std::vector<std::string> gather_notes(const Group* gathers);

}  // namespace permafrost
