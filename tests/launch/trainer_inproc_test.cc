// Several ranks that are threads of this process: what they compute, and what they move.
#include <algorithm>

#include "core/base/narrow.h"
#include "core/device/cpu_features.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/inproc_group.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

/// Bytes that a rank exchanges in a step.
struct Moved {
  int64_t gathered = 0, reduced = 0;
  int64_t norms = 0;  ///< not among the metrics; by the rank's share of the trainable space
  int64_t total() const { return gathered + reduced + norms; }
};

struct RanksResult {
  std::vector<double> losses;
  std::string adapter_sha256;
  std::vector<Moved> moved;  ///< by rank
  TrafficPlan planned;       ///< of the rank with most

  void expect_moved_as_planned() const {
    const Moved& most = *std::ranges::max_element(moved, {}, &Moved::total);
    EXPECT_EQ(most.gathered, planned.gathered_working + planned.gathered_frozen) << moved.size() << " ranks";
    EXPECT_EQ(most.reduced, planned.reduced_gradients) << moved.size() << " ranks";
    EXPECT_EQ(most.norms, planned.gathered_norms) << moved.size() << " ranks";
    EXPECT_EQ(most.gathered > 0, moved.size() > 1);
    EXPECT_EQ(most.reduced > 0, moved.size() > 1);
  }
};

class TrainerInproc : public TrainerTest {
 protected:
  RanksResult train(int ranks, const Overrides& more) const {
    RanksResult result;
    result.moved.resize(static_cast<size_t>(ranks));
    static int count = 0;
    const CheckpointStore store((folder_ / ("checkpoints" + std::to_string(count++))).string(), 1);
    run_inproc(ranks, [&](Group& world) {
      ThreadPool pool(1);
      HierarchicalGroup group(world, std::vector<int>(static_cast<size_t>(world.size()), 0), {});
      Runtime runtime{group, pool, {ranks, 1, 1}, group.node(), ""};
      on_rank(more, runtime, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime&) {
        const auto [begin, end] = plan.slice(world.rank());
        Moved& moved = result.moved[static_cast<size_t>(world.rank())];
        moved.norms = 8 * (div_up(plan.trainable_space, kTrainableBlock) - div_up(end - begin, kTrainableBlock));
        while (trainer.step() < config.config.train().max_steps()) {
          const StepMetrics metrics = trainer.train_step(false);
          if (runtime.first()) result.losses.push_back(metrics.loss);
          if (metrics.step > 0) {
            EXPECT_EQ(metrics.gathered_bytes, moved.gathered) << "the same in every step";
            EXPECT_EQ(metrics.reduced_bytes, moved.reduced) << "the same in every step";
          }
          moved.gathered = metrics.gathered_bytes;
          moved.reduced = metrics.reduced_bytes;
        }
        const std::string hash = trainer.save(store);
        if (runtime.first()) {
          result.adapter_sha256 = hash;
          result.planned = plan.traffic;
        }
      });
    });
    return result;
  }
};

TEST_F(TrainerInproc, RanksChangeNoBitAndMoveWhatThePlanSays) {
  // 10 samples in 5 micro-batches, which no number of ranks but 1 divides.
  const Overrides uneven{"train.global_batch=10", "train.micro_batch=2", "train.max_steps=3",
                         "optimizer.clip_norm=0.5"};
  const RanksResult alone = train(1, uneven);
  ASSERT_EQ(alone.losses.size(), 3u);
  ASSERT_FALSE(alone.adapter_sha256.empty());
  alone.expect_moved_as_planned();
  for (int ranks = 2; ranks <= 4; ++ranks) {
    const RanksResult result = train(ranks, uneven);
    EXPECT_EQ(result.losses, alone.losses) << ranks;
    EXPECT_EQ(result.adapter_sha256, alone.adapter_sha256) << ranks;
    result.expect_moved_as_planned();
  }
}

TEST_F(TrainerInproc, MovesWhatThePlanSaysInBf16) {
  if (!cpu_features().avx512_bf16) GTEST_SKIP() << "this processor has no bf16 instructions";
  for (const int ranks : {2, 3})
    train(ranks, {"train.global_batch=12", "train.micro_batch=4", "train.max_steps=2", "precision.compute=BF16"})
        .expect_moved_as_planned();
}

}  // namespace
}  // namespace permafrost
