#include "parallel/plan/gather_schedule.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

namespace {

constexpr int kNever = std::numeric_limits<int>::max();

class GatherScheduler {
 public:
  GatherScheduler(const std::vector<std::vector<int>>& uses, SlotChoice choice) : uses_(uses), choice_(choice) {
    held_.fill(-1);
  }

  std::vector<Gather> run() {
    for (int step = 0; step < narrow<int>(uses_.size()); ++step) {
      const std::vector<int>& units = uses_[static_cast<size_t>(step)];
      if (std::ssize(units) > kGatherSlots)
        fail(ErrorKind::kConfig, "plan: a step can read ", kGatherSlots, " sharded units; got ", units.size(),
             " in step ", step, ": keep one of them resident (parallel.policies)");
      for (int unit : units)
        if (!holder(unit)) gather(unit, step);
      for (int unit : units) holder(unit)->last_use = step;
    }
    return std::move(gathers_);
  }

 private:
  Gather* in_slot(int slot) {
    const int held = held_[static_cast<size_t>(slot)];
    return held < 0 ? nullptr : &gathers_[static_cast<size_t>(held)];
  }

  Gather* holder(int unit) {
    for (int slot = 0; slot < kGatherSlots; ++slot)
      if (Gather* held = in_slot(slot); held && held->unit == unit) return held;
    return nullptr;
  }

  int next_use(int unit, int step) const {
    for (int s = step; s < narrow<int>(uses_.size()); ++s)
      if (std::ranges::count(uses_[static_cast<size_t>(s)], unit)) return s;
    return kNever;
  }

  /// How gladly a slot is given to another unit: by the choice first, by the other measure between equals. What this
  /// step reads stays; an empty slot is taken before all others.
  std::pair<int, int> willingness(int slot, int step) {
    const Gather* held = in_slot(slot);
    if (!held) return {kNever, kNever};
    const int next = next_use(held->unit, step), rest = kNever - 1 - held->last_use;
    if (next == step) return {-1, -1};
    return choice_ == SlotChoice::kFarthest ? std::pair{next, rest} : std::pair{rest, next};
  }

  void gather(int unit, int step) {
    const int slot = willingness(1, step) > willingness(0, step) ? 1 : 0;
    const Gather* former = in_slot(slot);
    int start = former ? former->last_use + 1 : 0;
    if (!gathers_.empty()) start = std::max(start, gathers_.back().start_step);
    held_[static_cast<size_t>(slot)] = narrow<int>(gathers_.size());
    gathers_.push_back({unit, slot, start, step, step});
  }

  const std::vector<std::vector<int>>& uses_;
  SlotChoice choice_;
  std::vector<Gather> gathers_;
  std::array<int, kGatherSlots> held_{};  // gather in each slot
};

}  // namespace

std::vector<Gather> schedule_gathers(const std::vector<std::vector<int>>& uses, SlotChoice choice) {
  return GatherScheduler(uses, choice).run();
}

}  // namespace permafrost
