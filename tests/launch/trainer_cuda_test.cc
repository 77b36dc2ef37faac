// Trainers whose programs run on a GPU (or its emulation): what they learn, and that it depends on no rank.
#include <cmath>

#include "core/device/cuda.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

struct Learned {
  std::vector<double> losses, norms, scales;
  int64_t scale_repeats = 0;
  std::string adapter_sha256;
};

class TrainerCuda : public TrainerTest {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    TrainerTest::SetUp();
  }
  /// Short texts, few samples.
  static Overrides small(const Overrides& more) {
    Overrides all{"data.max_text_tokens=32", "data.length_buckets=32", "train.global_batch=2", "train.micro_batch=1",
                  "train.max_steps=3"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static Overrides on_gpu(Overrides more) {
    more.push_back("parallel.device=CUDA");
    return small(more);
  }
  CheckpointStore new_store() const {
    static int count = 0;
    return CheckpointStore((folder_ / ("checkpoints" + std::to_string(count++))).string(), 3);
  }
  static void step(Trainer& trainer, int steps, Learned& run) {
    for (int i = 0; i < steps; ++i) {
      const StepMetrics metrics = trainer.train_step(false);
      run.losses.push_back(metrics.loss);
      run.norms.push_back(metrics.grad_norm);
      run.scales.push_back(metrics.loss_scale);
      run.scale_repeats += metrics.scale_repeats;
    }
  }
  Learned train(const Overrides& more) const {
    Learned run;
    const CheckpointStore store = new_store();
    with_trainer(more, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      step(trainer, 3, run);
      run.adapter_sha256 = trainer.save(store);
    });
    return run;
  }
  static void expect_close(const std::vector<double>& got, const std::vector<double>& want, double relative) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], relative * std::abs(want[i])) << i;
  }
};

// Both devices round f32 sums of a few hundred terms in other orders: some 2^-22 in each of about twenty layers. Three
// steps of AdamW from zero moments divide by gradients, which multiplies that by a few. A norm adds relative
// errors of gradients, which are larger than that of the loss by the layers they went back through.
TEST_F(TrainerCuda, LearnsWhatTheCpuLearns) {
  const Learned cpu = train(small({})), gpu = train(on_gpu({}));
  expect_close(gpu.losses, cpu.losses, 2e-5);
  expect_close(gpu.norms, cpu.norms, 1e-4);
  EXPECT_EQ(train(on_gpu({})).adapter_sha256, gpu.adapter_sha256) << "the same bits on every run";
}

// bf16 keeps eight bits of every activation; the loss is a mean over some hundred tokens of errors that are
// independent.
TEST_F(TrainerCuda, LearnsInBf16) {
  const Learned f32 = train(on_gpu({})), bf16 = train(on_gpu({"precision.compute=BF16"}));
  expect_close(bf16.losses, f32.losses, 0x1p-8);
  EXPECT_NE(bf16.losses, f32.losses);
}

Overrides in_f16(const Overrides& more = {}) {
  Overrides all{"precision.compute=FP16"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}
std::string initial_scale(double scale) { return concat("precision.loss_scale.initial=", static_cast<int64_t>(scale)); }
const std::string kLargestScale = initial_scale(0x1p24);

// f16 keeps eleven bits of every activation, three more than bf16; as there.
TEST_F(TrainerCuda, LearnsInF16) {
  const Learned f32 = train(on_gpu({})), f16 = train(on_gpu(in_f16()));
  expect_close(f16.losses, f32.losses, 0x1p-11);
  EXPECT_NE(f16.losses, f32.losses);
  // A norm is a sum of squares of gradients, each with the roundings of some thirty layers and back, which are
  // independent: twice the relative error of one of them, 2^-11 sqrt(60).
  expect_close(f16.norms, f32.norms, 2 * 0x1p-11 * 8);
  EXPECT_EQ(f16.scales, (std::vector<double>{65536, 65536, 65536}));
  EXPECT_EQ(f16.scale_repeats, 0);
  EXPECT_EQ(f32.scales, (std::vector<double>{0, 0, 0})) << "there is none";
}

/// The gradient of a logit is up to 1 / (tokens of the batch), of which there are less than 128: times 2^24 it is above
/// what f16 holds.
TEST_F(TrainerCuda, AScaleThatOverflowsIsHalvedUntilItFits) {
  const Learned large = train(on_gpu(in_f16({kLargestScale})));
  EXPECT_GE(large.scale_repeats, 2);
  EXPECT_LE(large.scales[0], 0x1p22);
  EXPECT_EQ(large.scales.back() * std::ldexp(1.0, static_cast<int>(large.scale_repeats)), 0x1p24) << "halved each time";
  const Learned fitting = train(on_gpu(in_f16({initial_scale(large.scales[0])})));
  EXPECT_EQ(fitting.scales, large.scales);
  EXPECT_EQ(std::ldexp(fitting.scales[0], static_cast<int>(large.scale_repeats - fitting.scale_repeats)), 0x1p24)
      << "as it is, from the first attempt on";
  EXPECT_EQ(fitting.losses, large.losses);
  EXPECT_EQ(fitting.norms, large.norms);
  EXPECT_EQ(fitting.adapter_sha256, large.adapter_sha256) << "nothing is left of the attempts given up";
}

/// The rank whose gradient is infinite need not be the only one, nor the first.
TEST_F(TrainerCuda, RanksAgreeOnTheScaleAndChangeNoBitInF16) {
  const Overrides config = on_gpu(in_f16({kLargestScale}));
  const Learned alone = train(config);
  Learned shared;
  const CheckpointStore store = new_store();
  with_ranks(2, 1, config, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
    Learned mine;
    step(trainer, 3, mine);
    EXPECT_EQ(mine.scales, alone.scales) << "rank " << runtime.rank();
    EXPECT_EQ(mine.scale_repeats, alone.scale_repeats) << "rank " << runtime.rank();
    mine.adapter_sha256 = trainer.save(store);
    if (runtime.first()) shared = mine;
  });
  EXPECT_EQ(shared.losses, alone.losses);
  EXPECT_EQ(shared.adapter_sha256, alone.adapter_sha256);
}

TEST_F(TrainerCuda, AScaleGrowsAndIsPartOfTheCheckpoint) {
  const Overrides config =
      on_gpu(in_f16({"train.max_steps=5", "precision.loss_scale.initial=256", "precision.loss_scale.growth_steps=2"}));
  Learned whole, parts;
  const CheckpointStore whole_store = new_store(), store = new_store();
  with_trainer(config, 1,
               [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
                 step(trainer, 5, whole);
                 whole.adapter_sha256 = trainer.save(whole_store);
                 int64_t runs = 0;
                 for (const int64_t n : trainer.program_runs()) runs += n;
                 EXPECT_EQ(runs, 2 * (1 + 5))
                     << "two micro-batches, once for the maxima: what is known of gradients outlives a scale";
               });
  EXPECT_EQ(whole.scales, (std::vector<double>{256, 256, 512, 512, 1024}));
  with_trainer(config, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    step(trainer, 3, parts);
    trainer.save(store);
  });
  with_trainer(config, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    trainer.resume(store.path_of(3));
    step(trainer, 2, parts);
    parts.adapter_sha256 = trainer.save(store);
  });
  EXPECT_EQ(parts.scales, whole.scales);
  EXPECT_EQ(parts.losses, whole.losses);
  EXPECT_EQ(parts.adapter_sha256, whole.adapter_sha256);
}

/// Weights that f16 cannot hold make losses that no scale makes finite: said at once, with the value.
TEST_F(TrainerCuda, ALossThatIsNotFiniteEndsTheRunInF16Too) {
  expect_refuses(on_gpu(in_f16({"optimizer.lr=1e30", "schedule.kind=CONSTANT", "schedule.warmup_steps=0",
                                "optimizer.clip_norm=0"})),
                 2, ErrorKind::kNonFinite,
                 {"train: step 1: loss and gradients must be finite; first in ", " (unit ", " with samples "});
}

TEST_F(TrainerTest, F16IsForGpus) {
  const auto dtype = [&](const Overrides& more) { return compute_dtype(resolved(more).config); };
  EXPECT_TRUE(testing::throws_error([&] { dtype(in_f16()); }, ErrorKind::kConfig,
                                    {"precision.compute: FP16 needs parallel.device=CUDA; got CPU; use BF16 or FP32"}));
  EXPECT_EQ(dtype(in_f16({"parallel.device=CUDA"})), DType::kF16);
}

TEST_F(TrainerCuda, RanksChangeNoBit) {
  const Learned alone = train(on_gpu({}));
  Learned shared;
  const CheckpointStore store = new_store();
  with_ranks(2, 1, on_gpu({}), [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
    Learned mine;
    step(trainer, 3, mine);
    mine.adapter_sha256 = trainer.save(store);
    if (runtime.first()) shared = mine;
  });
  EXPECT_EQ(shared.losses, alone.losses);
  EXPECT_EQ(shared.adapter_sha256, alone.adapter_sha256);
}

TEST_F(TrainerCuda, FrozenUnitsComeThroughSlots) {
  const Overrides frozen{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}"};
  Overrides sharded = frozen;
  sharded.push_back("parallel.frozen_policy=SHARDED");
  const Learned resident = train(on_gpu(frozen)), slots = train(on_gpu(sharded));
  EXPECT_EQ(slots.losses, resident.losses);
  EXPECT_EQ(slots.adapter_sha256, resident.adapter_sha256);
}

TEST_F(TrainerCuda, ACheckpointGoesOnOnTheOtherDevice) {
  const Learned cpu = train(small({}));
  for (const bool to_gpu : {true, false}) {
    Learned run;
    const CheckpointStore store = new_store();
    const auto device = [](bool gpu) { return gpu ? on_gpu({}) : small({}); };
    with_trainer(device(!to_gpu), 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      step(trainer, 2, run);
      trainer.save(store);
    });
    with_trainer(device(to_gpu), 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      trainer.resume(store.path_of(2));
      step(trainer, 1, run);
    });
    expect_close(run.losses, cpu.losses, 2e-5);
  }
}

}  // namespace
}  // namespace permafrost
