#include "parallel/reduce/vote.h"

#include <cmath>

#include "core/kernels/order_free.h"
#include "parallel/group/inproc_group.h"
#include "parallel/group/recording_group.h"
#include "parallel/shard/shard_spec.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

TEST(Vote, IsTheSameForAnyNumberOfRanks) {
  const int64_t g = 7;
  const auto loss = [](int64_t m) { return 1.0 / static_cast<double>(3 * m + 1); };
  for (int ranks = 1; ranks <= 4; ++ranks)
    run_inproc(ranks, [&](Group& group) {
      Voter voter(ranks, 3, g);
      for (int step = 0; step < 2; ++step) {  // the second vote must not remember the first
        std::vector<MicroBatchLoss> losses;
        std::vector<int32_t> exponents = {kZeroExponent, kZeroExponent, kZeroExponent};
        for (int64_t m = group.rank(); m < g; m += ranks) {
          losses.push_back({m, loss(m) + step});
          exponents[0] = std::max(exponents[0], static_cast<int32_t>(m - 10 * step));
          exponents[1] = std::max(exponents[1], static_cast<int32_t>(-m));
        }
        Ballot ballot;
        ballot.schedule = 0xabcd;
        ballot.exponents = exponents;
        ballot.losses = losses;
        ballot.overflow = step == 0 && group.rank() == ranks - 1;
        ballot.stop = step == 1 && group.rank() == 0;
        ballot.left_out_samples = step == 0 && group.rank() == ranks - 1 ? 2 : 0;
        ballot.left_out_tokens = step == 0 ? 12 / ranks : 0;
        const Vote& vote = voter.cast(group, ballot);
        EXPECT_TRUE(vote.finite);
        EXPECT_EQ(vote.overflow, step == 0);
        EXPECT_EQ(vote.stop, step == 1);
        EXPECT_EQ(vote.left_out_samples, step == 0 ? 2 : 0);
        EXPECT_EQ(vote.left_out_tokens, step == 0 ? 12 : 0);
        EXPECT_EQ(vote.exponents, (std::vector<int32_t>{6 - 10 * step, 0, kZeroExponent}));
        ASSERT_EQ(std::ssize(vote.losses), g);
        double sum = 0;
        for (int64_t m = 0; m < g; ++m) {
          EXPECT_EQ(vote.losses[static_cast<size_t>(m)], loss(m) + step);
          sum += loss(m) + step;
        }
        EXPECT_EQ(vote.loss_sum(), sum);
      }
    });
}

TEST(Vote, TheLowestBadMicroBatchIsNamed) {
  run_inproc(3, [](Group& group) {
    Voter voter(3, 2, 3);
    const std::vector<int32_t> exponents = {1, 129};
    const std::vector<MicroBatchLoss> losses = {{2 - group.rank(), group.rank() == 0 ? std::nan("") : 1.0}};
    Ballot ballot;
    ballot.exponents = exponents;
    ballot.losses = losses;
    ballot.finite = group.rank() == 1;  // ranks 0 and 2 saw micro-batches 2 and 0
    if (!ballot.finite) {
      ballot.bad_param = group.rank();
      ballot.bad_micro_batch = 2 - group.rank();
      ballot.bad_sample = 40 + group.rank();
    }
    const Vote& vote = voter.cast(group, ballot);
    EXPECT_FALSE(vote.finite);
    EXPECT_EQ(vote.bad_rank, 2);
    EXPECT_EQ(vote.bad_param, 2);
    EXPECT_EQ(vote.bad_micro_batch, 0);
    EXPECT_EQ(vote.bad_sample, 42);
    EXPECT_TRUE(std::isnan(vote.losses[2]));
  });
}

TEST(Vote, RanksAtDifferentPlacesAreRefused) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(3, [](Group& group) {
          Voter voter(3, 0, 3);
          const std::vector<MicroBatchLoss> losses = {{group.rank(), 0.0}};
          Ballot ballot;
          ballot.losses = losses;
          ballot.schedule = group.rank() == 1 ? 0x11 : 0x22;
          voter.cast(group, ballot);
        });
      },
      ErrorKind::kPeer, {"one place of the schedule", "22 on rank 0", "11 on rank 1"}));
}

TEST(Vote, MissingAndDoubleLossesAreRefused) {
  const auto cast = [](std::vector<MicroBatchLoss> losses) {
    Voter voter(1, 0, 2);
    Ballot ballot;
    ballot.losses = losses;
    voter.cast(*make_solo_group(), ballot);
  };
  cast({{1, 0.5}, {0, 0.5}});
  EXPECT_TRUE(throws_error([&] { cast({{1, 0.5}}); }, ErrorKind::kInternal, {"none for 0"}));
  EXPECT_TRUE(throws_error([&] { cast({{1, 0.5}, {1, 0.5}}); }, ErrorKind::kInternal, {"second or unknown one, 1"}));
  EXPECT_TRUE(throws_error([&] { cast({{0, 0.5}, {2, 0.5}}); }, ErrorKind::kInternal, {"0..1", "2, from rank 0"}));
  EXPECT_TRUE(throws_error([&] { cast({{0, 0}, {1, 0}, {0, 0}}); }, ErrorKind::kInvalidArgument, {"at most 2"}));
  EXPECT_TRUE(throws_error([] { Voter(1, 2, 1).cast(*make_solo_group(), Ballot{}); }, ErrorKind::kInvalidArgument,
                           {"one exponent per parameter (2)"}));
}

TEST(Vote, IsOneCollective) {
  const auto recording = std::make_shared<Recording>();
  const auto group = make_recording_group(4, 2, recording);
  Voter voter(4, 5, 6);
  const std::vector<int32_t> exponents(5, 0);
  Ballot ballot;
  ballot.exponents = exponents;
  // The others are silent, so their messages are zeros, which name one micro-batch twice: the call itself is what is
  // looked at.
  EXPECT_TRUE(throws_error([&] { voter.cast(*group, ballot); }, ErrorKind::kInternal,
                           {"vote: each micro-batch in 0..5 must have one loss; got a second or unknown one, 0"}));
  ASSERT_EQ(recording->records().size(), 1u);
  EXPECT_EQ(recording->records()[0].operation, Operation::kAllGather);
  EXPECT_EQ(recording->records()[0].bytes, 4 * voter.message_bytes());
}

TEST(ShardSpec, DividesWholeBlocks) {
  for (const int64_t elements : {0, 1, 4096, 4097, 12968, 40960})
    for (int ranks = 1; ranks <= 7; ++ranks) {
      const ShardSpec spec(elements, ranks);
      int64_t at = 0;
      int64_t blocks = 0;
      for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(spec.begin(r), at);
        EXPECT_TRUE(at % ShardSpec::kBlock == 0 || at == elements);
        EXPECT_LE(std::abs(spec.block_counts()[static_cast<size_t>(r)] - spec.blocks() / ranks), 1);
        at += spec.count(r);
        blocks += spec.block_counts()[static_cast<size_t>(r)];
        EXPECT_EQ(spec.end(r), at);
      }
      EXPECT_EQ(at, elements);
      EXPECT_EQ(blocks, spec.blocks());
    }
  EXPECT_TRUE(throws_error([] { ShardSpec(1, 0); }, ErrorKind::kInvalidArgument, {"ranks and block >= 1"}));
}

}  // namespace
}  // namespace permafrost
