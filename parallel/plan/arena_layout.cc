#include "parallel/plan/arena_layout.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace permafrost {

int64_t peak_live_bytes(const std::vector<PlannedBuffer>& buffers) {
  int last = 0;
  for (const PlannedBuffer& b : buffers) last = std::max(last, b.last_step);
  std::vector<int64_t> change(static_cast<size_t>(last) + 2, 0);
  for (const PlannedBuffer& b : buffers) {
    change[static_cast<size_t>(b.first_step)] += b.bytes;
    change[static_cast<size_t>(b.last_step) + 1] -= b.bytes;
  }
  int64_t live = 0, peak = 0;
  for (int64_t c : change) peak = std::max(peak, live += c);
  return peak;
}

namespace {

bool overlap_in_time(const PlannedBuffer& a, const PlannedBuffer& b) {
  return a.first_step <= b.last_step && b.first_step <= a.last_step;
}

/// Places buffers in the given order, each at the tightest gap between those alive at the same time. Returns the
/// arena size; offsets go to `offsets`.
int64_t place(const std::vector<PlannedBuffer>& buffers, const std::vector<size_t>& order,
              std::vector<int64_t>& offsets) {
  std::vector<size_t> placed;  // sorted by offset
  int64_t arena = 0;
  for (size_t index : order) {
    const PlannedBuffer& b = buffers[index];
    int64_t best = -1, best_gap = std::numeric_limits<int64_t>::max(), end = 0;
    for (size_t other : placed) {
      if (!overlap_in_time(b, buffers[other])) continue;
      const int64_t gap = offsets[other] - end;
      if (gap >= b.bytes && gap < best_gap) {
        best = end;
        best_gap = gap;
      }
      end = std::max(end, offsets[other] + buffers[other].bytes);
    }
    offsets[index] = best >= 0 ? best : end;
    arena = std::max(arena, offsets[index] + b.bytes);
    const auto at = std::ranges::upper_bound(placed, offsets[index], {}, [&](size_t i) { return offsets[i]; });
    placed.insert(at, index);
  }
  return arena;
}

}  // namespace

int64_t layout_arena(std::vector<PlannedBuffer>& buffers, bool reuse) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<int64_t> offsets(buffers.size(), 0), best_offsets;
  if (!reuse) {
    int64_t end = 0;
    for (PlannedBuffer& b : buffers) {
      b.offset = end;
      end += b.bytes;
    }
    return end;
  }
  const auto life = [&](size_t i) { return static_cast<int64_t>(buffers[i].last_step - buffers[i].first_step + 1); };
  const auto by_size = [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; };
  const auto by_area = [&](size_t a, size_t b) { return buffers[a].bytes * life(a) > buffers[b].bytes * life(b); };
  const auto by_life = [&](size_t a, size_t b) {
    return life(a) != life(b) ? life(a) > life(b) : buffers[a].bytes > buffers[b].bytes;
  };
  int64_t best = std::numeric_limits<int64_t>::max();
  const auto attempt = [&](auto&& before) {
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, before);
    const int64_t arena = place(buffers, order, offsets);
    if (arena < best) {
      best = arena;
      best_offsets = offsets;
    }
  };
  const int64_t floor = peak_live_bytes(buffers);
  attempt(by_size);
  if (best > floor) attempt(by_area);
  if (best > floor) attempt(by_life);
  if (best > floor) attempt([&](size_t a, size_t b) { return buffers[a].first_step < buffers[b].first_step; });
  if (buffers.empty()) return 0;
  for (size_t i = 0; i < buffers.size(); ++i) buffers[i].offset = best_offsets[i];
  return best;
}

}  // namespace permafrost
