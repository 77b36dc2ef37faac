// Several ranks that are threads of this process: what they compute, and what they move.
#include <mutex>

#include "core/device/cpu_features.h"
#include "parallel/group/inproc_group.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

struct RanksResult {
  std::vector<double> losses;
  std::string adapter_sha256;
  int64_t planned_gathered = 0, planned_reduced = 0;  // by the plan, in a step of the rank with most
  int64_t gathered = 0, reduced = 0;                  // by the metrics, in a step of the rank with most
};

class TrainerInproc : public TrainerTest {
 protected:
  RanksResult train(int ranks, const Overrides& more) const {
    RanksResult result;
    std::mutex mutex;  // of the largest values
    static int count = 0;
    const CheckpointStore store((folder_ / ("checkpoints" + std::to_string(count++))).string(), 1);
    run_inproc(ranks, [&](Group& world) {
      ThreadPool pool(1);
      Runtime runtime{world, pool, ranks, world.rank(), ""};
      on_rank(more, runtime, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime&) {
        while (trainer.step() < config.config.train().max_steps()) {
          const StepMetrics metrics = trainer.train_step(false);
          const std::lock_guard lock(mutex);
          if (runtime.first()) result.losses.push_back(metrics.loss);
          result.gathered = std::max(result.gathered, metrics.gathered_bytes);
          result.reduced = std::max(result.reduced, metrics.reduced_bytes);
        }
        const std::string hash = trainer.save(store);
        const std::lock_guard lock(mutex);
        if (result.adapter_sha256.empty()) result.adapter_sha256 = hash;
        EXPECT_EQ(hash, result.adapter_sha256) << "all ranks know the same adapter";
        result.planned_gathered = plan.traffic.gathered_working + plan.traffic.gathered_frozen;
        result.planned_reduced = plan.traffic.reduced_gradients;
      });
    });
    return result;
  }
};

TEST_F(TrainerInproc, RanksChangeNoBitAndMoveWhatThePlanSays) {
  // 10 samples in 5 micro-batches, which no number of ranks but 1 divides.
  const Overrides uneven{"train.global_batch=10", "train.micro_batch=2", "train.max_steps=3", "optimizer.clip_norm=0.5"};
  const RanksResult alone = train(1, uneven);
  ASSERT_EQ(alone.losses.size(), 3u);
  EXPECT_EQ(alone.gathered, 0);
  EXPECT_EQ(alone.reduced, 0);
  for (int ranks = 1; ranks <= 4; ++ranks) {
    const RanksResult result = train(ranks, uneven);
    EXPECT_EQ(result.losses, alone.losses) << ranks;
    EXPECT_EQ(result.adapter_sha256, alone.adapter_sha256) << ranks;
    EXPECT_EQ(result.gathered, result.planned_gathered) << ranks;
    EXPECT_EQ(result.reduced, result.planned_reduced) << ranks;
    EXPECT_EQ(result.gathered > 0, ranks > 1) << ranks;
    EXPECT_EQ(result.reduced > 0, ranks > 1) << ranks;
  }
}

TEST_F(TrainerInproc, MovesWhatThePlanSaysInBf16) {
  if (!cpu_features().avx512_bf16) GTEST_SKIP() << "this processor has no bf16 instructions";
  for (const int ranks : {2, 3}) {
    const RanksResult result = train(ranks, {"train.global_batch=12", "train.micro_batch=4", "train.max_steps=2", "precision.compute=BF16"});
    EXPECT_GT(result.gathered, 0);
    EXPECT_EQ(result.gathered, result.planned_gathered) << ranks;
    EXPECT_EQ(result.reduced, result.planned_reduced) << ranks;
  }
}

}  // namespace
}  // namespace permafrost
