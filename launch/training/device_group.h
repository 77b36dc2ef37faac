#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/device/buffer.h"
#include "launch/runtime.h"
#include "parallel/run/step_memory.h"

namespace permafrost {

/// Memory where programs run, which on CPU the other ranks of the node read in place.
class DeviceMemory {
 public:
  /// Collective over `node` on CPU.
  DeviceMemory(std::string name, int64_t bytes, NodeGroup& node, Device device);
  std::byte* data() const { return device_.data() ? device_.data() : shared_->data(); }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_.device(); }

 private:
  int64_t bytes_;
  Buffer device_;
  std::optional<ReadableMemory> shared_;
};

/// The group that exchanges what lies where programs run: the world's on CPU; on CUDA one over it, through staging in
/// host memory that the ranks of the node read in place.
class DeviceGroup {
 public:
  /// largest_bytes: of what is exchanged by one call. Collective.
  DeviceGroup(Runtime& runtime, int64_t largest_bytes);
  Group& operator*() const { return over_host_ ? *over_host_ : world_; }
  Group* operator->() const { return &**this; }
  /// How, in words, for the log; "" on CPU and on one rank.
  std::string str() const;
  /// What the staging takes of the host's memory.
  std::span<const std::byte> staging() const {
    if (!staging_) return {};
    return {staging_->data(), static_cast<size_t>(staging_->bytes())};
  }

 private:
  Group& world_;
  std::optional<ReadableMemory> staging_;
  PinnedMemory pinned_;
  std::unique_ptr<Group> over_host_;
};

}  // namespace permafrost
