#include "launch/training/step_segments.h"

#include <gtest/gtest.h>

#include "core/device/bytes.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

TEST(StepSegments, OnCpuEachWorkIsDoneWhenItIsAdded) {
  std::vector<VotedWork> done;
  StepSegments segments(Context(), [&](VotedWork work) { done.push_back(work); });
  segments.begin(false);
  segments.add(VotedWork::kNormBlocks);
  EXPECT_EQ(done, std::vector{VotedWork::kNormBlocks});
  segments.add(VotedWork::kUpdate);
  const std::vector both{VotedWork::kNormBlocks, VotedWork::kUpdate};
  EXPECT_EQ(done, both);
  segments.end_segment();
  EXPECT_EQ(done, both);
  EXPECT_EQ(segments.graph_launches(), 0);
}

TEST(StepSegments, WorksHaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (int i = 0; i < kVotedWorks; ++i) names.insert(to_string(static_cast<VotedWork>(i)));
  EXPECT_EQ(names.size(), static_cast<size_t>(kVotedWorks));
}

/// Each work adds one to a byte of its own.
class StepSegmentsCuda : public ::testing::Test {
 protected:
  using Works = std::vector<VotedWork>;
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    stream_.emplace(Device::cuda(0));
    context_ = {.device = Device::cuda(0), .pool = nullptr, .stream = *stream_};
    memory_ = Buffer::pinned("bytes", kVotedWorks, Device::cuda(0));
    segments_.emplace(context_, [this](VotedWork work) {
      given_.push_back(work);
      fill_bytes(context_, memory_.data() + static_cast<int>(work), 1, 1);
      if (waits_) finish(context_);
    });
  }
  /// A segment of `works`; returns what was given by calls of the host. All of them must be done, and nothing else.
  Works run(const Works& works) {
    given_.clear();
    fill_bytes(context_, memory_.data(), 0, memory_.bytes());
    for (const VotedWork work : works) segments_->add(work);
    EXPECT_TRUE(given_.empty()) << "collected until the segment ends";
    segments_->end_segment();
    finish(context_);
    for (int i = 0; i < kVotedWorks; ++i) {
      const bool wanted = std::ranges::find(works, static_cast<VotedWork>(i)) != works.end();
      EXPECT_EQ(static_cast<int>(memory_.data()[i]), wanted ? 1 : 0) << to_string(static_cast<VotedWork>(i));
    }
    return given_;
  }
  static Works twice(Works works) {
    const Works once = works;
    works.insert(works.end(), once.begin(), once.end());
    return works;
  }
  std::optional<Stream> stream_;
  Context context_;
  Buffer memory_;
  Works given_;
  bool waits_ = false;
  std::optional<StepSegments> segments_;
};

TEST_F(StepSegmentsCuda, OneGraphForEachSetOfWorks) {
  const Works plain{VotedWork::kConvertSums, VotedWork::kNormBlocks},
      scaled{VotedWork::kConvertSums, VotedWork::kScaleSlice, VotedWork::kNormBlocks};
  segments_->begin(true);
  EXPECT_EQ(run(plain), twice(plain)) << "the first time by calls, and for the capture";
  EXPECT_EQ(run(scaled), twice(scaled)) << "another segment";
  EXPECT_EQ(segments_->graph_launches(), 0);
  EXPECT_EQ(run(plain), Works{});
  EXPECT_EQ(segments_->graph_launches(), 1);
  EXPECT_EQ(run(scaled), Works{});
  EXPECT_EQ(run(plain), Works{});
  EXPECT_EQ(run(scaled), Works{});
  EXPECT_EQ(segments_->graph_launches(), 4);
}

TEST_F(StepSegmentsCuda, ASingleWorkIsNoGraph) {
  segments_->begin(true);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(run({VotedWork::kNormBlocks}), Works{VotedWork::kNormBlocks});
  EXPECT_EQ(run({}), Works{}) << "nor is nothing";
  EXPECT_EQ(segments_->graph_launches(), 0);
}

TEST_F(StepSegmentsCuda, WhatCannotBeCapturedIsGivenCallByCallAndSaid) {
  const Works works{VotedWork::kNorm, VotedWork::kUpdate};
  segments_->begin(true);
  waits_ = true;
  ::testing::internal::CaptureStderr();
  run(works);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("device: work behind the vote (norm, update) is given kernel by kernel, not as a CUDA graph: "),
            std::string::npos)
      << said;
  EXPECT_EQ(run(works), works);
  EXPECT_EQ(segments_->graph_launches(), 0);
}

TEST_F(StepSegmentsCuda, WorksComeInTheirOrder) {
  segments_->begin(true);
  segments_->add(VotedWork::kNorm);
  EXPECT_TRUE(testing::throws_error([&] { segments_->add(VotedWork::kNormBlocks); }, ErrorKind::kInvalidArgument,
                                    {"in their order; got norm blocks behind work behind the vote (norm)"}));
  segments_->begin(true);  // nothing is left of a step that ended in an error
  EXPECT_EQ(run({VotedWork::kNormBlocks}), Works{VotedWork::kNormBlocks});
}

}  // namespace
}  // namespace permafrost
