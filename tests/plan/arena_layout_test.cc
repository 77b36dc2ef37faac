#include "parallel/plan/arena_layout.h"

#include <gtest/gtest.h>

#include "core/base/philox.h"

namespace permafrost {
namespace {

bool clash(const PlannedBuffer& a, const PlannedBuffer& b) {
  const bool time = a.first_step <= b.last_step && b.first_step <= a.last_step;
  const bool space = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  return time && space;
}

void expect_sound(const std::vector<PlannedBuffer>& buffers, int64_t arena) {
  for (size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_GE(buffers[i].offset, 0);
    EXPECT_LE(buffers[i].offset + buffers[i].bytes, arena);
    for (size_t j = i + 1; j < buffers.size(); ++j) EXPECT_FALSE(clash(buffers[i], buffers[j])) << i << " and " << j;
  }
}

TEST(ArenaLayout, KeepsRandomBuffersApart) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed, RandomPurpose::kSynthetic);
    std::vector<PlannedBuffer> buffers(60);
    for (PlannedBuffer& b : buffers) {
      b.bytes = static_cast<int64_t>(random.next_below(20)) * kArenaAlignment;
      b.first_step = static_cast<int>(random.next_below(40));
      b.last_step = b.first_step + static_cast<int>(random.next_below(15));
    }
    const int64_t arena = layout_arena(buffers, true);
    expect_sound(buffers, arena);
    EXPECT_GE(arena, peak_live_bytes(buffers));
  }
}

TEST(ArenaLayout, NestedLivesOfForwardAndBackwardNeedNoMoreThanThePeak) {
  // Saved in forward, used in reverse order in backward: the shape of every training step.
  std::vector<PlannedBuffer> buffers;
  const int layers = 20;
  for (int i = 0; i < layers; ++i) {
    buffers.push_back({"saved", BufferKind::kSaved, 640 * (1 + i % 3), 0, i, 2 * layers - i});
    buffers.push_back({"scratch", BufferKind::kWorkspace, 6400, 0, i, i});
    buffers.push_back({"scratch", BufferKind::kWorkspace, 1280, 0, 2 * layers - i, 2 * layers - i});
  }
  const int64_t arena = layout_arena(buffers, true);
  expect_sound(buffers, arena);
  EXPECT_LE(static_cast<double>(arena), 1.05 * static_cast<double>(peak_live_bytes(buffers)));
}

TEST(ArenaLayout, WithoutReuseEveryBufferStandsAlone) {
  std::vector<PlannedBuffer> buffers = {{"a", BufferKind::kActivation, 64, 0, 0, 0},
                                        {"b", BufferKind::kActivation, 128, 0, 5, 6}};
  EXPECT_EQ(layout_arena(buffers, false), 192);
  EXPECT_EQ(buffers[1].offset, 64);
}

TEST(ArenaLayout, OfNothingIsNothing) {
  std::vector<PlannedBuffer> none;
  EXPECT_EQ(layout_arena(none, true), 0);
  EXPECT_EQ(peak_live_bytes(none), 0);
}

TEST(ArenaLayout, PeakCountsBuffersAliveTogether) {
  const std::vector<PlannedBuffer> buffers = {{"a", BufferKind::kActivation, 64, 0, 0, 2},
                                              {"b", BufferKind::kActivation, 128, 0, 2, 3},
                                              {"c", BufferKind::kActivation, 256, 0, 3, 3}};
  EXPECT_EQ(peak_live_bytes(buffers), 384);  // b and c; a ended
}

}  // namespace
}  // namespace permafrost
