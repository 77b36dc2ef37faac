#include "parallel/group/recording_group.h"

#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::kHere;
using testing::Others;
using testing::throws_error;

class RecordingGroupTest : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(RecordingGroupTest, Collectives) {
  const auto group = make_recording_group(GetParam().first, GetParam().second, std::make_shared<Recording>());
  testing::check_collectives(*group, Others::kSilent);
  testing::check_streams(*group, Others::kSilent);
  testing::check_argument_errors(*group);
}
INSTANTIATE_TEST_SUITE_P(SizeAndRank, RecordingGroupTest,
                         ::testing::Values(std::pair{1, 0}, std::pair{2, 0}, std::pair{4, 3}, std::pair{9, 7}));

TEST(RecordingGroup, RecordsEveryCall) {
  const auto recording = std::make_shared<Recording>();
  const auto group = make_recording_group(4, 1, recording);
  std::vector<int64_t> all(10);
  std::vector<bfloat16> half(8);
  const std::vector<int64_t> counts = {1, 2, 3, 4};
  const auto pair = group->split(0, 0, "pair");
  group->reduce_scatter(flat(std::span(all)), flat(std::span(all).subspan(1, 2)), counts, ReduceOp::kSum, kHere,
                        "sums");
  pair->all_gather(flat(std::span(half).subspan(2, 2)), flat(std::span(half)), {}, kHere, "copy");
  group->all_reduce(flat(std::span(all)), flat(std::span(all)), ReduceOp::kMax, kHere, "max");
  group->broadcast(flat(std::span(half)), 0, kHere, "start");
  group->barrier(kHere, "end");
  const std::vector<Record> want = {
      {Operation::kSplit, "pair", DType::kU8, ReduceOp::kSum, 0, 0, 0},
      {Operation::kReduceScatter, "sums", DType::kI64, ReduceOp::kSum, 10, 80, 64},
      {Operation::kAllGather, "copy", DType::kBF16, ReduceOp::kSum, 8, 16, 12},
      {Operation::kAllReduce, "max", DType::kI64, ReduceOp::kMax, 10, 80,
       112},  // own: 10 / 4, the first two get one more
      {Operation::kBroadcast, "start", DType::kBF16, ReduceOp::kSum, 8, 16, 16},
      {Operation::kBarrier, "end", DType::kU8, ReduceOp::kSum, 0, 0, 0},
  };
  EXPECT_EQ(recording->records(), want);
  recording->clear();
  EXPECT_TRUE(recording->records().empty());
}

TEST(RecordingGroup, AbortIsRemembered) {
  const auto group = make_recording_group(2, 1, std::make_shared<Recording>());
  group->abort(Error(ErrorKind::kConfig, "no such file"));
  ASSERT_TRUE(group->async_error().has_value());
  EXPECT_TRUE(throws_error([&] { group->barrier(kHere, "x"); }, ErrorKind::kConfig, {"rank 1/2 failed: no such file"}));
}

TEST(RecordingGroup, RefusesARankOutsideTheGroup) {
  EXPECT_TRUE(throws_error([] { make_recording_group(2, 2, std::make_shared<Recording>()); },
                           ErrorKind::kInvalidArgument, {"rank 2 of 2"}));
}

}  // namespace
}  // namespace permafrost
