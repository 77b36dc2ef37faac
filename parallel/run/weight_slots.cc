#include "parallel/run/weight_slots.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>

#include "core/base/narrow.h"
#include "parallel/group/copy.h"

namespace permafrost {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSlotSpin = std::chrono::microseconds(20);  // then sleep: the other thread may need this core
constexpr int64_t kCopyBlock = int64_t{1} << 20;

bool reached(uint32_t count, uint32_t at_least) { return static_cast<int32_t>(count - at_least) >= 0; }

uint32_t startable(const std::vector<Gather>& gathers, int steps_done) {
  uint32_t count = 0;
  while (count < gathers.size() && gathers[count].start_step <= steps_done) ++count;
  return count;
}

}  // namespace

WeightSlots::Lease& WeightSlots::Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    release();
    slots_ = std::exchange(other.slots_, nullptr);
    gather_ = other.gather_;
  }
  return *this;
}

void WeightSlots::Lease::release() {
  WeightSlots* slots = std::exchange(slots_, nullptr);
  if (!slots) return;
  if (slots->copies_)
    slots->copies_->release(gather_);
  else
    slots->allow(startable(*slots->gathers_, (*slots->gathers_)[gather_].last_use + 1));
}

WeightSlots::WeightSlots(const Plan& plan, const StepMemory& memory, const Context& context, Group* group)
    : plan_(plan), memory_(memory), context_(context), group_(group) {
  if (!plan.gather.uses_slots() || plan.memory.slots == 0) return;
  PERMAFROST_CHECK(plan.gather.kind != GatherKind::kCollective || (group && group->size() == plan.world.ranks),
                   "weight slots: gathering between nodes needs a group of the ", plan.world.ranks, " ranks; got ",
                   group ? concat(group->size()) : "none");
  for (size_t u = 0; u < plan.frozen_units.size(); ++u) {
    const ShardSpec parts = memory.layout.parts(u);
    counts_.emplace_back(parts.counts().begin(), parts.counts().end());
  }
  if (memory.device.kind == DeviceKind::kCuda)
    copies_ = std::make_unique<UnitCopies>(plan, memory, context,
                                           plan.gather.kind == GatherKind::kCollective ? group : nullptr, counts_);
  else if (plan.gather.prefetch)
    thread_ = std::thread([this] { work(); });
}

WeightSlots::~WeightSlots() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  allowed_.fetch_add(1);
  allowed_.notify_all();
  thread_.join();
}

void WeightSlots::begin(size_t bucket) {
  if (gathers_) base_ += narrow<uint32_t>(std::ssize(*gathers_));
  gathers_ = &plan_.programs[bucket].gathers;
  if (copies_) return copies_->begin(*gathers_);
  allow(startable(*gathers_, 0));
}

void WeightSlots::allow(uint32_t gathers) {
  if (!thread_.joinable() || reached(allowed_.load(std::memory_order_relaxed), base_ + gathers)) return;
  allowed_.store(base_ + gathers, std::memory_order_release);
  allowed_.notify_one();
}

template <typename Enough>
void WeightSlots::wait_until(const std::atomic<uint32_t>& counter, Enough enough) {
  const auto spin_end = Clock::now() + kSlotSpin;
  for (uint32_t seen = counter.load(std::memory_order_acquire); !enough(seen);
       seen = counter.load(std::memory_order_acquire)) {
    if (Clock::now() < spin_end)
      _mm_pause();
    else
      counter.wait(seen, std::memory_order_acquire);
  }
}

WeightSlots::Lease WeightSlots::acquire(size_t index) {
  const Gather& gather = (*gathers_)[index];
  const auto begin = Clock::now();
  if (copies_) {
    copies_->acquire(index);
  } else if (thread_.joinable()) {
    const uint32_t ticket = base_ + narrow<uint32_t>(index) + 1;
    wait_until(filled_, [&](uint32_t count) { return reached(count, ticket) || failed_.load(); });
    if (failed_) std::rethrow_exception(error_);
  } else {
    fill_seen(gather);
  }
  waited_ms_ += std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  if (!copies_on_device()) count(gather);
  return {*this, index};
}

void WeightSlots::fill_seen(const Gather& gather) {
  const auto unit = static_cast<size_t>(gather.unit);
  if (observer_) observer_->begin_fill(unit);
  fill(gather);
  if (observer_) observer_->end_fill(unit);
}

void WeightSlots::fill(const Gather& gather) {
  const auto u = static_cast<size_t>(gather.unit);
  const FrozenUnit& unit = plan_.frozen_units[u];
  const int64_t place = plan_.slot_begin(gather.slot);
  std::byte* slot = memory_.slots.data() + place;
  if (plan_.gather.kind == GatherKind::kCopy) {
    const std::byte* from = memory_.frozen.data() + memory_.layout.whole_at(u);
    if (thread_.joinable()) {  // the pool is the computing thread's
      copy_past_caches(slot, from, unit.bytes);
      return;
    }
    context_.pool->run(div_up(unit.bytes, kCopyBlock), [&](int64_t block, int) {
      const int64_t at = block * kCopyBlock;
      copy_past_caches(slot + at, from + at, std::min(kCopyBlock, unit.bytes - at));
    });
    return;
  }
  const int64_t own = counts_[u][static_cast<size_t>(memory_.rank)];
  const Tensor part(own == 0 ? nullptr : memory_.frozen.data() + memory_.layout.own_part_at(u), DType::kU8, Shape{own});
  group_
      ->all_gather(part, Tensor(slot, DType::kU8, Shape{unit.bytes}), counts_[u], StreamView::caller(),
                   "frozen weights")
      .wait();
}

void WeightSlots::work() {
  try {
    for (uint32_t next = 0;; ++next) {
      wait_until(allowed_, [&](uint32_t count) { return reached(count, next + 1) || stopping_.load(); });
      if (stopping_) return;
      fill_seen((*gathers_)[next - base_]);
      filled_.store(next + 1, std::memory_order_release);
      filled_.notify_one();
    }
  } catch (...) {
    error_ = std::current_exception();
    failed_ = true;
    filled_.fetch_add(1);
    filled_.notify_one();
  }
}

void WeightSlots::pass_over(size_t first) {
  for (size_t g = first; g < gathers_->size(); ++g) acquire(g);
}

void WeightSlots::count_copies(size_t bucket) {
  if (!copies_on_device()) return;
  for (const Gather& gather : plan_.programs[bucket].gathers) count(gather);
}

void WeightSlots::count(const Gather& gather) {
  const auto unit = static_cast<size_t>(gather.unit);
  gathered_bytes_ += plan_.frozen_units[unit].bytes - counts_[unit][static_cast<size_t>(memory_.rank)];
}

double WeightSlots::take_waited_ms() { return std::exchange(waited_ms_, 0); }
int64_t WeightSlots::take_gathered_bytes() { return std::exchange(gathered_bytes_, 0); }

}  // namespace permafrost
