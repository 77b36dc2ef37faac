#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/context.h"
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

/// Keeps memory that others own pinned for a device.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(std::string_view name, std::byte* memory, int64_t bytes, Device device);
  PinnedMemory(PinnedMemory&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~PinnedMemory();

 private:
  std::byte* memory_ = nullptr;
};

/// Makes zero-filled memory of a device that it gathers into and from: such as the library that does it wants. Empty:
/// plain memory.
using GatherAllocator = std::function<Buffer(std::string name, int64_t bytes, Device device)>;

/// The memory that the programs of a plan run in, one piece per region, sized by the plan. Everything is allocated
/// here, before the first step.
/// On CUDA, `device` has its own copy of what programs read; the host's frozen parameters, working copies and inputs
/// are what is loaded, exchanged and filled, and go over by the upload functions.
struct StepMemory {
  int rank = 0;
  Device device;
  FrozenLayout layout;
  Buffer arena, state;   ///< on the device
  Buffer inputs;         ///< the host's
  ReadableMemory slots;  ///< neighbours on the node read here what came from other nodes
  ReadableMemory working;
  SharedMemory frozen;  ///< what this node has of the frozen space, once for all its ranks

  /// Collective over `node`, the ranks that the plan's world puts on this rank's node; null: nobody shares this memory.
  explicit StepMemory(const Plan& plan, int rank = 0, NodeGroup* node = nullptr, Device device = Device::cpu(),
                      const GatherAllocator& gathered = {});
  /// For programs over the weights of another plan's memory, which must live longer: frozen parameters and working
  /// copies are the lender's. Collective like the other. Errors: kInvalidArgument naming the first parameter or unit
  /// that the two plans place differently.
  StepMemory(const Plan& plan, const StepMemory& lender, const Plan& lender_plan, NodeGroup* node = nullptr,
             const GatherAllocator& gathered = {});

  /// This rank's part in filling and hashing the frozen memory of its node.
  std::vector<FrozenRange> frozen_share() const { return layout.share(frozen.data()); }

  /// The tensor that a reference means to a program; undefined for Region::kNone.
  Tensor tensor(const TensorRef& ref) const;
  /// Where the host fills an input.
  Tensor input(const TensorRef& ref) const { return {inputs.data() + ref.offset, ref.spec}; }
  /// Where a parameter is stored for a program: frozen (its unit must be on this node as a whole), or its working copy.
  Tensor param(const ParamPlan& param) const;
  /// The working copies of all parameters as programs read them, (bytes) u8.
  Tensor working_copies() const { return {address(Region::kWorking, 0), DType::kU8, Shape{working.bytes()}, device}; }
  /// Where the host loads or exchanges it; the same place on CPU.
  Tensor host_param(const ParamPlan& param) const;
  /// Where programs find a slot, and their inputs.
  std::byte* slot(int64_t offset) const;
  std::byte* device_inputs() const { return address(Region::kInputs, 0); }
  /// What a device holds of a unit that devices gather from each other, (bytes) u8: this rank's part.
  Tensor device_part(size_t unit) const;
  /// Where all such parts lie, and the slots, (bytes) u8 each: of the same sizes, and with units at the same places, on
  /// all ranks. None where devices gather nothing from each other.
  std::vector<Tensor> gathered_memory() const;

  /// To the device, in the order of the context's stream; on CPU there is nothing to do. Of a lender's weights the
  /// lender does it.
  void upload_frozen(const Context& context) const;
  void upload_working(const Context& context) const;
  /// Units whose frozen parameters are not on the device what the host has; none on CPU.
  std::vector<size_t> units_that_differ(const Context& context) const;

 private:
  bool on_cuda() const { return device.kind == DeviceKind::kCuda; }
  void place_on_device(const Plan& plan, const GatherAllocator& gathered);
  size_t unit_at(int64_t offset) const;
  std::byte* address(Region region, int64_t offset) const;

  // On CUDA alone; nothing on CPU.
  struct DevicePlace {
    int64_t at = 0;       ///< in the device's frozen memory, or in that of parts
    int64_t host_at = 0;  ///< in the node's
    int64_t bytes = 0;    ///< 0: programs read it in a slot, and it is copied there from the host
    int64_t room = 0;     ///< what it takes: of a part, the largest of all ranks
    bool part = false;    ///< that devices gather
  };
  DevicePlace place_of(const Plan& plan, size_t unit) const;
  struct DeviceWeights {
    Buffer frozen, parts, working;
    std::vector<DevicePlace> places;  ///< per unit
    std::byte* at(const DevicePlace& place) const { return (place.part ? parts : frozen).data() + place.at; }
  };
  std::shared_ptr<DeviceWeights> weights_;  // a borrower's are the lender's
  PinnedMemory pinned_;                     // of the host's frozen parameters, where units are copied into slots
  Buffer device_inputs_, device_slots_;
  bool gathers_ = false;  // devices from each other, into slots
};

}  // namespace permafrost
