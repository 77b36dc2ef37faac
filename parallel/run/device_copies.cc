#include "parallel/run/device_copies.h"

namespace permafrost {

InputUploads::InputUploads(const StepMemory& memory, const Context& computing)
    : memory_(memory), computing_(computing) {
  if (memory.device.kind != DeviceKind::kCuda) return;
  copying_ = std::make_unique<Stream>(memory.device);
  ahead_ = Buffer("inputs ahead", memory.inputs.bytes(), memory.device);
  uploaded_.reset(cuda::create_mark(*copying_->queue()));
  taken_.reset(cuda::create_mark(*computing.stream.queue()));
}

void InputUploads::start(int64_t bytes) {
  if (!copying_) return;
  cuda::Queue& copying = *copying_->queue();
  cuda::wait_in_queue(*taken_, copying);
  cuda::copy(copying, ahead_.data(), memory_.inputs.data(), bytes);
  cuda::record(*uploaded_, copying);
}

void InputUploads::take(int64_t bytes) {
  if (!copying_) return;
  cuda::Queue& computing = *computing_.stream.queue();
  cuda::wait_in_queue(*uploaded_, computing);
  cuda::copy(computing, memory_.device_inputs(), ahead_.data(), bytes);
  cuda::record(*taken_, computing);
}

void InputUploads::wait() const {
  if (copying_) cuda::wait(*uploaded_);
}

UnitCopies::UnitCopies(const Plan& plan, const StepMemory& memory, const Context& computing, Group* group,
                       const std::vector<std::vector<int64_t>>& counts)
    : plan_(plan), memory_(memory), computing_(computing), copying_(memory.device), group_(group), counts_(counts) {
  for (Slot& slot : slots_) {
    slot.filled.reset(cuda::create_mark(*copying_.queue()));
    slot.free.reset(cuda::create_mark(*copying_.queue()));
  }
  began_.reset(cuda::create_mark(*computing.stream.queue()));
}

/// The wait is for what read the slots before, and makes the copies part of what is captured. An error from before has
/// ended its program, perhaps a capture that was given up: then this is the same program again.
void UnitCopies::begin(const std::vector<Gather>& gathers) {
  gathers_ = &gathers;
  started_ = 0;
  error_ = nullptr;
  for (Slot& slot : slots_) slot.used = false;
  cuda::record(*began_, *computing_.stream.queue());
  cuda::wait_in_queue(*began_, *copying_.queue());
  start_until(0);
}

void UnitCopies::start_until(int steps_done) {
  for (; started_ < gathers_->size() && (*gathers_)[started_].start_step <= steps_done; ++started_) {
    const Gather& gather = (*gathers_)[started_];
    Slot& slot = slots_[static_cast<size_t>(gather.slot)];
    if (slot.used) cuda::wait_in_queue(*slot.free, *copying_.queue());
    slot.used = true;
    const auto unit = static_cast<size_t>(gather.unit);
    if (observer_) observer_->begin_copy(unit, *copying_.queue());
    fill(gather);
    if (observer_) observer_->end_copy(unit);
    cuda::record(*slot.filled, *copying_.queue());
  }
}

void UnitCopies::fill(const Gather& gather) {
  const auto unit = static_cast<size_t>(gather.unit);
  const int64_t bytes = plan_.frozen_units[unit].bytes;
  std::byte* slot = memory_.slot(plan_.slot_begin(gather.slot));
  if (!group_) return cuda::copy(*copying_.queue(), slot, memory_.frozen.data() + memory_.layout.whole_at(unit), bytes);
  group_->all_gather(memory_.device_part(unit), Tensor(slot, DType::kU8, Shape{bytes}, memory_.device), counts_[unit],
                     copying_, "frozen weights");
}

void UnitCopies::acquire(size_t gather) {
  if (error_) std::rethrow_exception(error_);
  cuda::wait_in_queue(*slots_[static_cast<size_t>((*gathers_)[gather].slot)].filled, *computing_.stream.queue());
}

void UnitCopies::release(size_t gather) noexcept {
  if (error_) return;
  try {
    const Gather& done = (*gathers_)[gather];
    cuda::record(*slots_[static_cast<size_t>(done.slot)].free, *computing_.stream.queue());
    start_until(done.last_use + 1);
  } catch (...) {
    error_ = std::current_exception();
  }
}

}  // namespace permafrost
