// One rank's Trainer in process: memory as forecast, nothing allocated on the step path, and settings that change no
// bit.
#include <cmath>
#include <fstream>

#include "core/base/json.h"
#include "launch/metrics/pss.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

// --- memory ----------------------------------------------------------------------------------------------------------

struct MemoryUse {
  int64_t forecast = 0;
  int64_t measured = 0;  // of the process, beside what it had before there was a plan
  int64_t arena = 0;
};

class TrainerMemory : public TrainerTest {
 protected:
  /// Proportional set size that three steps add to this process.
  MemoryUse measure(const Overrides& more) const {
    MemoryUse use;
    const int64_t before = pss_bytes();
    with_trainer(more, 2, [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime&) {
      for (int i = 0; i < 3; ++i) trainer.train_step(false);
      use = {plan.memory.total(), pss_bytes() - before, plan.memory.arena};
    });
    return use;
  }
  /// Within 5 % of the forecast, plus the constant.
  static void expect_as_forecast(const MemoryUse& use) {
    EXPECT_LE(use.measured, use.forecast + use.forecast / 20 + kProcessConstantBytes) << "forecast " << use.forecast;
    EXPECT_GE(use.measured, use.forecast - use.forecast / 20) << "forecast " << use.forecast;
  }
};

TEST_F(TrainerMemory, IsWhatThePlanForecasts) {
  if (pss_bytes() == 0) GTEST_SKIP() << "this kernel has no smaps_rollup";
  if (!testing::can_count_allocations()) GTEST_SKIP() << "sanitizers take memory of their own";
  // One bucket, or the arena of the largest is touched only when a text is that long.
  const MemoryUse small = measure({"data.max_text_tokens=64", "data.length_buckets=64"});
  expect_as_forecast(small);
  const MemoryUse large =
      measure({"data.max_text_tokens=64", "data.length_buckets=64", "model.epalm.text.vocab=20000",
               "train.micro_batch=8", "model.epalm.text.hidden=128", "model.epalm.text.word_embed_proj_dim=128"});
  expect_as_forecast(large);
  EXPECT_GT(large.arena, 4 * small.arena) << "the second is to have a larger arena";
  EXPECT_GT(large.forecast, kProcessConstantBytes / 2) << "or the constant hides everything";
  for (const auto& [name, use] : {std::pair("small", small), std::pair("large", large)}) {
    RecordProperty(concat(name, "_forecast_bytes"), std::to_string(use.forecast));
    RecordProperty(concat(name, "_measured_bytes"), std::to_string(use.measured));
  }
  // What is beside the forecast does not grow with it.
  EXPECT_LE(std::abs((large.measured - large.forecast) - (small.measured - small.forecast)),
            large.forecast / 20 + (int64_t{16} << 20));
}

// --- allocations -----------------------------------------------------------------------------------------------------

TEST_F(TrainerTest, StepsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  for (const Overrides& more : allocation_cases())
    with_trainer(more, 2, [](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
      expect_steps_allocate_nothing(trainer, runtime);
    });
}

// --- the same bits ---------------------------------------------------------------------------------------------------

struct Result {
  std::vector<double> losses;
  std::string adapter_sha256;
  int64_t arena_bytes = 0;
};

class TrainerBits : public TrainerTest {
 protected:
  Result train(const Overrides& more, int threads = 1) const {
    Result result;
    static int count = 0;
    const CheckpointStore store((folder_ / ("checkpoints" + std::to_string(count++))).string(), 1);
    with_trainer(more, threads, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime&) {
      while (trainer.step() < config.config.train().max_steps())
        result.losses.push_back(trainer.train_step(false).loss);
      result.adapter_sha256 = trainer.save(store);
      result.arena_bytes = plan.memory.arena;
    });
    return result;
  }
};

TEST_F(TrainerBits, DependOnNoSettingThatOnlySaysHow) {
  const Overrides random{"data.transform=TRAIN"};  // augmentations are drawn on decode threads
  const Result first = train(random);
  ASSERT_EQ(first.losses.size(), 4u);
  for (double loss : first.losses) EXPECT_TRUE(std::isfinite(loss));
  const auto expect_same = [&](Overrides more, int threads) {
    more.insert(more.begin(), random.begin(), random.end());
    const Result other = train(more, threads);
    EXPECT_EQ(other.losses, first.losses) << more.back();
    EXPECT_EQ(other.adapter_sha256, first.adapter_sha256) << more.back();
    return other;
  };
  expect_same({"data.prefetch=1"}, 1);
  expect_same({"data.prefetch=4"}, 1);
  expect_same({"data.decode_threads=3"}, 1);
  expect_same({"data.decode_threads=3", "data.prefetch=4"}, 2);
  const Result apart = expect_same({"parallel.reuse_buffers=false"}, 1);
  EXPECT_GT(apart.arena_bytes, first.arena_bytes) << "nothing shares memory";
  EXPECT_NE(train({"data.transform=TRAIN", "data.seed=1"}).losses, first.losses) << "other draws, other losses";
}

// --- images that cannot be used --------------------------------------------------------------------------------------

TEST_F(TrainerTest, CountsSamplesItSkips) {
  std::ifstream captions(photos() / "captions.json");
  const auto json = parse_json(captions);
  const std::string bad = json["images"][3]["file_name"];
  std::ofstream(photos() / "images" / bad) << "no photograph";
  // 12 images with two captions each are three steps of 8 samples: after an epoch the bad image came up twice.
  const Overrides skip{"data.image_policy=SKIP", "train.max_steps=6"};
  with_trainer(skip, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    EXPECT_EQ(trainer.skipped_samples(), 0);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isfinite(trainer.train_step(false).loss));
    EXPECT_EQ(trainer.skipped_samples(), 2);
    for (int i = 0; i < 3; ++i) trainer.train_step(false);
    EXPECT_EQ(trainer.skipped_samples(), 4) << "the second epoch";
  });
  expect_refuses({"train.max_steps=3"}, 3, ErrorKind::kData, {bad});  // the default policy
}

class TrainerSkip : public TrainerTest {
 protected:
  /// One step over all samples of the folder as it is.
  StepMetrics step_over_all(const Overrides& more) const {
    StepMetrics metrics;
    Overrides all{"train.global_batch=24", "train.max_steps=1"};
    all.insert(all.end(), more.begin(), more.end());
    with_trainer(all, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      metrics = trainer.train_step(false);
    });
    return metrics;
  }
};

TEST_F(TrainerSkip, LeavesLossAndGradientAsIfSamplesWereNotThere) {
  std::ifstream file(photos() / "captions.json");
  auto captions = parse_json(file);
  for (int bad : {0, 3, 7, 8, 9, 10})
    std::ofstream(photos() / "images" / captions["images"][bad]["file_name"]) << "no photograph";
  for (const char* loss : {"loss.kind=SAMPLE_SUM", "loss.kind=TOKEN_MEAN"}) {
    const StepMetrics skipped = step_over_all({loss, "data.image_policy=SKIP"});
    std::set<int64_t> gone;
    for (int bad : {0, 3, 7, 8, 9, 10}) gone.insert(captions["images"][bad]["id"].get<int64_t>());
    auto fewer = captions;
    fewer["annotations"] = Json::array();
    for (const auto& caption : captions["annotations"])
      if (!gone.contains(caption["image_id"])) fewer["annotations"].push_back(caption);
    ASSERT_EQ(fewer["annotations"].size(), 12u);
    std::ofstream(photos() / "fewer.json") << fewer;
    const StepMetrics without = step_over_all({loss, "data.captions=fewer.json"});
    // Other micro-batches hold the same samples: sums in another order.
    EXPECT_NEAR(skipped.loss, without.loss, 1e-5 * without.loss) << loss;
    EXPECT_NEAR(skipped.grad_norm, without.grad_norm, 1e-4 * without.grad_norm) << loss;
  }
}

TEST_F(TrainerSkip, WithoutAnyUsableImageEndsTheRun) {
  for (const auto& image : fs::directory_iterator(photos() / "images")) std::ofstream(image.path()) << "no photograph";
  expect_refuses({"data.image_policy=SKIP"}, 1, ErrorKind::kData, {"got none for its 8 samples", "photos/images/"});
}

}  // namespace
}  // namespace permafrost
