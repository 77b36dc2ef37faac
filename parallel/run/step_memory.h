#pragma once
#include <string>
#include <vector>

#include "core/device/buffer.h"
#include "parallel/group/node/node_group.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// A rank's own memory, which the other ranks of its node can read in place.
class ReadableMemory {
 public:
  /// Collective over `node`; null: nobody else reads it.
  ReadableMemory(std::string name, int64_t bytes, NodeGroup* node);
  /// The same memory, owned by `lender`, which must live longer.
  static ReadableMemory borrowed(const ReadableMemory& lender);
  std::byte* data() const { return memory_.data() + offset_; }
  int64_t bytes() const { return bytes_; }

 private:
  ReadableMemory() = default;
  SharedMemory memory_;  // of all ranks of the node, one after the other
  int64_t offset_ = 0, bytes_ = 0;
};

/// The memory that the programs of a plan run in, one piece per region, sized by the plan. Everything is allocated
/// here, before the first step.
struct StepMemory {
  int rank = 0;
  FrozenLayout layout;
  Buffer arena, inputs, state;
  ReadableMemory slots;  ///< neighbours on the node read here what came from other nodes
  ReadableMemory working;
  SharedMemory frozen;  ///< what this node has of the frozen space, once for all its ranks

  /// Collective over `node`, the ranks that the plan's world puts on this rank's node; null: nobody shares this memory.
  explicit StepMemory(const Plan& plan, int rank = 0, NodeGroup* node = nullptr);
  /// For programs over the weights of another plan's memory, which must live longer: frozen parameters and working
  /// copies are the lender's. Collective like the other. Errors: kInvalidArgument naming the first parameter or unit
  /// that the two plans place differently.
  StepMemory(const Plan& plan, const StepMemory& lender, const Plan& lender_plan, NodeGroup* node = nullptr);

  /// This rank's part in filling and hashing the frozen memory of its node.
  std::vector<FrozenRange> frozen_share() const { return layout.share(frozen.data()); }

  /// The tensor that a reference means here; undefined for Region::kNone.
  Tensor tensor(const TensorRef& ref) const;
  /// Where a parameter is stored: frozen (its unit must be on this node as a whole), or its working copy.
  Tensor param(const ParamPlan& param) const;

 private:
  std::byte* address(Region region, int64_t offset) const;
};

}  // namespace permafrost
