#include "parallel/group/inproc_group.h"

#include <atomic>
#include <thread>

#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::kHere;
using testing::Others;
using testing::throws_error;

class InprocGroupTest : public ::testing::TestWithParam<int> {};

TEST_P(InprocGroupTest, Collectives) {
  run_inproc(GetParam(), [](Group& group) { testing::check_collectives(group, Others::kTakePart); });
}
TEST_P(InprocGroupTest, Streams) {
  run_inproc(GetParam(), [](Group& group) { testing::check_streams(group, Others::kTakePart); });
}
TEST_P(InprocGroupTest, PointToPoint) {
  run_inproc(GetParam(), [](Group& group) { testing::check_point_to_point(group); });
}
TEST_P(InprocGroupTest, Split) {
  run_inproc(GetParam(), [](Group& group) { testing::check_split(group); });
}
TEST_P(InprocGroupTest, ArgumentErrors) {
  run_inproc(GetParam(), [](Group& group) { testing::check_argument_errors(group); });
}
TEST_P(InprocGroupTest, MovedBytes) {
  std::vector<MovedBytes> moved(static_cast<size_t>(GetParam()));
  InprocOptions options;
  options.moved = moved;
  run_inproc(
      GetParam(),
      [&](Group& group) {
        const MovedBytes& own = moved[static_cast<size_t>(group.rank())];
        testing::check_moved_bytes(group, own, testing::MovedClosedForm::kFlat);
        const auto reversed = group.split(0, group.rank(), "same order");
        testing::check_moved_bytes(*reversed, own, testing::MovedClosedForm::kFlat);
      },
      options);
}
INSTANTIATE_TEST_SUITE_P(Ranks, InprocGroupTest, ::testing::Values(1, 2, 3, 4));

TEST(InprocGroup, RanksThatWaitAreReleasedWithTheFailingRanksReason) {
  std::atomic<int> told = 0;
  const auto body = [&](Group& group) {
    if (group.rank() == 1) fail(ErrorKind::kNonFinite, "loss: must be finite; got nan");
    try {
      group.barrier(kHere, "step 3");
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNonFinite &&
          std::string(error.what()) == "rank 1/3 failed: loss: must be finite; got nan")
        ++told;
      throw;
    }
  };
  EXPECT_TRUE(throws_error([&] { run_inproc(3, body); }, ErrorKind::kNonFinite, {"loss: must be finite"}));
  EXPECT_EQ(told, 2);
}

TEST(InprocGroup, AbortReachesSplitGroupsAndQueuedWork) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(3, [](Group& group) {
          const auto pair = group.split(group.rank() == 2 ? 1 : 0, 0, "pair");
          if (group.rank() == 0) fail(ErrorKind::kData, "image 7: unreadable");
          Stream stream(Device::cpu());
          const Event event = (group.rank() == 1 ? *pair : group).barrier(stream, "queued");
          try {
            event.wait();
            ADD_FAILURE() << "rank " << group.rank() << " was not released";
          } catch (const Error& error) {
            EXPECT_EQ(error.kind(), ErrorKind::kData);
            EXPECT_NE(std::string(error.what()).find("rank 0/3 failed: image 7"), std::string::npos);
            EXPECT_TRUE(group.async_error().has_value());
            throw;
          }
        });
      },
      ErrorKind::kData, {"image 7"}));
}

TEST(InprocGroup, TimeLimitNamesTheCallAndTheMissingRanks) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(4,
                   [](Group& group) {
                     std::vector<float> x(4);
                     if (group.rank() == 1 || group.rank() == 3) return;
                     group.all_reduce(flat(std::span(x)), flat(std::span(x)), ReduceOp::kSum, kHere, "gradients");
                   },
                   {std::chrono::milliseconds(50)});
      },
      ErrorKind::kTimeout, {"all_reduce 'gradients'", "within 50 ms", "missing rank 1 3"}));
}

TEST(InprocGroup, ReceiveWithoutSenderTimesOut) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(2,
                   [](Group& group) {
                     float x = 0;
                     if (group.rank() == 0) group.recv(flat(std::span(&x, 1)), 1, kHere, "row");
                   },
                   {std::chrono::milliseconds(30)});
      },
      ErrorKind::kTimeout, {"recv 'row'", "missing rank 1"}));
}

TEST(InprocGroup, DifferentCallsAreNamed) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(2, [](Group& group) {
          std::vector<int32_t> x(2);
          const Tensor tensor = flat(std::span(x));
          if (group.rank() == 0)
            group.all_reduce(tensor, tensor, ReduceOp::kSum, kHere, "a");
          else
            group.all_reduce(tensor, tensor, ReduceOp::kMax, kHere, "a");
        });
      },
      ErrorKind::kPeer,
      {"same call", "rank 0: all_reduce 'a' of 2 i32 by sum", "rank 1: all_reduce 'a' of 2 i32 by max"}));
}

TEST(InprocGroup, ABrokenGroupStaysBroken) {
  const auto groups = make_inproc_groups(2);
  groups[0]->abort(Error(ErrorKind::kStorage, "disk full"));
  groups[1]->abort(Error(ErrorKind::kConfig, "later, and ignored"));
  for (int i = 0; i < 2; ++i)
    EXPECT_TRUE(
        throws_error([&] { groups[1]->barrier(kHere, "x"); }, ErrorKind::kStorage, {"rank 0/2 failed: disk full"}));
}

TEST(InprocGroup, FloatSumsAreInRankOrder) {
  // (1e8 + 1) - 1e8 and 1e8 - 1e8 + 1 differ in f32: the order is visible, and must be 0, 1, 2 on every rank.
  const float values[3] = {1e8f, 1.0f, -1e8f};
  run_inproc(3, [&](Group& group) {
    std::vector<float> x(7, values[group.rank()]);
    group.all_reduce(flat(std::span(x)), flat(std::span(x)), ReduceOp::kSum, kHere, "order");
    for (const float v : x) EXPECT_EQ(v, (1e8f + 1.0f) - 1e8f);
  });
}

TEST(InprocGroup, NaNOfAnyRankWinsMaximumAndMinimum) {
  for (int bad = 0; bad < 3; ++bad)
    for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin})
      run_inproc(3, [&](Group& group) {
        double x = group.rank() == bad ? std::numeric_limits<double>::quiet_NaN() : group.rank();
        group.all_reduce(flat(std::span(&x, 1)), flat(std::span(&x, 1)), op, kHere, "nan");
        EXPECT_TRUE(x != x);
      });
}

TEST(InprocGroup, IntegerSumsWrap) {
  run_inproc(2, [](Group& group) {
    int64_t x = std::numeric_limits<int64_t>::max();
    group.all_reduce(flat(std::span(&x, 1)), flat(std::span(&x, 1)), ReduceOp::kSum, kHere, "wrap");
    EXPECT_EQ(x, -2);
  });
}

TEST(InprocGroup, RefusesAnotherNumberOfCounters) {
  std::vector<MovedBytes> moved(3);
  InprocOptions options;
  options.moved = moved;
  EXPECT_TRUE(throws_error([&] { make_inproc_groups(2, options); }, ErrorKind::kInvalidArgument,
                           {"one counter per rank (2); got 3"}));
}

TEST(InprocGroup, RefusesNoRanks) {
  EXPECT_TRUE(throws_error([] { make_inproc_groups(0); }, ErrorKind::kInvalidArgument, {"ranks must be >= 1", "0"}));
}

}  // namespace
}  // namespace permafrost
