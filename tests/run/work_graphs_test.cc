#include "parallel/run/work_graphs.h"

#include <gtest/gtest.h>

#include "core/device/bytes.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

class WorkGraphsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    stream_.emplace(Device::cuda(0));
    context_ = {.device = Device::cuda(0), .pool = nullptr, .stream = *stream_};
    memory_ = Buffer::pinned("bytes", 4, Device::cuda(0));
  }
  int at(int64_t i) {
    finish(context_);
    return static_cast<int>(memory_.data()[i]);
  }
  static std::string name(WorkGraphs::Key key) { return concat("work ", key.work, ".", key.variant); }
  std::optional<Stream> stream_;
  Context context_;
  Buffer memory_;
};

TEST_F(WorkGraphsTest, RunsOnceIsCapturedAndThenLaunches) {
  WorkGraphs graphs(context_, name);
  int calls = 0;
  const auto give = [&] {
    ++calls;
    copy_bytes(context_, memory_.data() + 1, memory_.data(), 1);
    fill_bytes(context_, memory_.data() + 2, 7 * calls, 1);
  };
  for (int run = 1; run <= 4; ++run) {
    memory_.data()[0] = static_cast<std::byte>(run);
    graphs.run({0, 1}, give);
    EXPECT_EQ(at(1), run) << "what memory holds when it is launched";
    EXPECT_EQ(at(2), run == 1 ? 7 : 14) << "numbers as they were when it was captured";
    EXPECT_EQ(calls, 2) << "both in the first run";
  }
  EXPECT_EQ(graphs.launches(), 3);
  graphs.run({0, 2}, give);
  EXPECT_EQ(calls, 4) << "another key is another graph";
  graphs.run({0, 1, 0}, give);
  EXPECT_EQ(calls, 6) << "and so is a part of it";
  EXPECT_EQ(graphs.launches(), 3);
}

TEST_F(WorkGraphsTest, TakesDeviceMemoryInTheFirstRunAlone) {
  WorkGraphs graphs(context_, name);
  const auto give = [&] { fill_bytes(context_, memory_.data(), 1, 1); };
  graphs.run({0, 0}, give);
  finish(context_);
  const int64_t free_bytes = cuda::device_info(0).free_bytes;
  for (int run = 0; run < 3; ++run) graphs.run({0, 0}, give);
  finish(context_);
  EXPECT_EQ(cuda::device_info(0).free_bytes, free_bytes);
}

TEST_F(WorkGraphsTest, WhatCannotBeCapturedIsGivenCallByCallAndSaid) {
  WorkGraphs graphs(context_, name);
  int calls = 0;
  const auto give = [&] {
    fill_bytes(context_, memory_.data(), ++calls, 1);
    finish(context_);  // which is no work for a graph
  };
  ::testing::internal::CaptureStderr();
  graphs.run({3, 1}, give);
  EXPECT_EQ(at(0), 1) << "done once";
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("device: work 3.1 is given kernel by kernel, not as a CUDA graph"), std::string::npos) << said;
  EXPECT_NE(said.find("Capture"), std::string::npos) << said;
  graphs.run({3, 1}, give);
  EXPECT_EQ(at(0), 3);
  EXPECT_EQ(calls, 3) << "not tried again";
  EXPECT_EQ(graphs.launches(), 0);
}

TEST_F(WorkGraphsTest, ForgetsWhatWasCaptured) {
  WorkGraphs graphs(context_, name);
  int calls = 0;
  const auto give = [&] { fill_bytes(context_, memory_.data(), ++calls, 1); };
  for (int run = 0; run < 3; ++run) graphs.run({0, 0}, give);
  EXPECT_EQ(calls, 2);
  graphs.forget();
  graphs.run({0, 0}, give);
  EXPECT_EQ(at(0), 3);
}

TEST_F(WorkGraphsTest, StreamsThatWaitForTheCapturedOneJoin) {
  WorkGraphs graphs(context_, name);
  Stream other(Device::cuda(0));
  const cuda::OwnedMark begun(cuda::create_mark(*stream_->queue())), done(cuda::create_mark(*other.queue()));
  const auto give = [&] {
    cuda::record(*begun, *stream_->queue());
    cuda::wait_in_queue(*begun, *other.queue());
    cuda::copy(*other.queue(), memory_.data() + 1, memory_.data(), 1);
    cuda::record(*done, *other.queue());
    cuda::wait_in_queue(*done, *stream_->queue());
  };
  for (int run = 1; run <= 3; ++run) {
    memory_.data()[0] = static_cast<std::byte>(run);
    graphs.run({0, 0}, give);
    EXPECT_EQ(at(1), run);
  }
}

}  // namespace
}  // namespace permafrost
