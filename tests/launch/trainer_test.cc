// One rank's Trainer in process: memory as forecast, nothing allocated on the step path, and settings that change no bit.
#include "launch/training/trainer.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "core/base/json.h"
#include "launch/metrics/pss.h"
#include "launch/sample_photos.h"
#include "launch/training/plan_setup.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"
#include "tests/support/count_allocations.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;
using Overrides = std::vector<std::string>;

/// Generated photographs and what is common to all runs on them.
class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_sample_photos(photos(), 12, 32, 42);
    write_byte_tokenizer(photos() / "tokenizer");
  }
  fs::path photos() const { return folder_ / "photos"; }

  /// The quickstart model with `more`, on the generated photographs.
  config::Resolved resolved(const Overrides& more) const {
    Overrides overrides{"data.root=" + photos().string(), "train.max_steps=4", "schedule.warmup_steps=1", "train.global_batch=8",
                        "train.micro_batch=4", "precision.compute=FP32"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return config::load_config(std::string(PERMAFROST_SOURCE) + "/configs/quickstart.textproto", overrides);
  }

  using Body = std::function<void(Trainer&, const config::Resolved&, const Plan&, Runtime&)>;
  /// Makes a trainer on one rank without a launcher and gives it to `body`.
  void with_trainer(const Overrides& more, int threads, const Body& body) const {
    const config::Resolved config = resolved(more);
    RuntimeOptions options;
    options.threads = threads;
    const int code = run_ranks({}, options, [&](Runtime& runtime) {
      PlanChoices choices;
      choices.world = {1, 1, threads};
      const Plan plan = make_plan(plan_request(config.config, choices));
      Trainer trainer(config.config, runtime, plan);
      body(trainer, config, plan, runtime);
    });
    EXPECT_EQ(code, 0);
  }

  ScratchFolder folder_;
};

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
  const MemoryUse large = measure({"data.max_text_tokens=64", "data.length_buckets=64", "model.epalm.text.vocab=20000", "train.micro_batch=8",
                                   "model.epalm.text.hidden=128", "model.epalm.text.word_embed_proj_dim=128"});
  expect_as_forecast(large);
  EXPECT_GT(large.arena, 4 * small.arena) << "the second is to have a larger arena";
  EXPECT_GT(large.forecast, kProcessConstantBytes / 2) << "or the constant hides everything";
  for (const auto& [name, use] : {std::pair("small", small), std::pair("large", large)}) {
    RecordProperty(concat(name, "_forecast_bytes"), std::to_string(use.forecast));
    RecordProperty(concat(name, "_measured_bytes"), std::to_string(use.measured));
  }
  // What is beside the forecast does not grow with it.
  EXPECT_LE(std::abs((large.measured - large.forecast) - (small.measured - small.forecast)), large.forecast / 20 + (int64_t{16} << 20));
}

// --- allocations -----------------------------------------------------------------------------------------------------

/// Calls body once on every thread of the pool, the calling one included.
template <typename Body>
void on_every_thread(ThreadPool& pool, Body body) {
  std::atomic<int> arrived{0};
  const int threads = pool.threads();
  pool.run(threads, [&](int64_t, int) {  // a thread stays until all have come, so that each takes one block
    body();
    ++arrived;
    while (arrived.load() < threads) std::this_thread::yield();
  });
}

TEST_F(TrainerTest, StepsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  for (const Overrides& more : {Overrides{"train.max_steps=8"}, Overrides{"train.max_steps=8", "precision.compute=AUTO"},
                                // What the quickstart does not have: dropout in frozen parts, the published visual token, prompt, gradients for few.
                                Overrides{"train.max_steps=8", "freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                                          "quirks.frozen_dropout=true", "train.final_check.loss=false", "train.final_check.exchanged_images=false", "quirks.vis_row=PUBLISHED", "optimizer.clip_norm=0.5"}}) {
    with_trainer(more, 2, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
      on_every_thread(runtime.pool, [] { testing::register_counted_thread(); });
      for (int i = 0; i < 3; ++i) trainer.train_step(false);
      for (int i = 3; i <= 6; ++i) {
        testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
        trainer.train_step(false);
        const testing::AllocationCount count = testing::end_counting_allocations();
        EXPECT_EQ(count.calls, 0) << "step " << i << ": " << count.bytes << " bytes, largest " << count.largest;
      }
      // The counter sees every one of these threads.
      testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
      on_every_thread(runtime.pool, [] {
        void* volatile memory = std::malloc(1000);  // volatile: compilers leave out what nobody looks at
        std::free(memory);
      });
      const testing::AllocationCount seen = testing::end_counting_allocations();
      EXPECT_EQ(seen.calls, runtime.pool.threads());
      EXPECT_EQ(seen.largest, 1000);
    });
  }
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
      while (trainer.step() < config.config.train().max_steps()) result.losses.push_back(trainer.train_step(false).loss);
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
  const config::Resolved config = resolved({"train.max_steps=3"});
  ::testing::internal::CaptureStderr();
  RuntimeOptions options;
  options.threads = 1;
  const int code = run_ranks({}, options, [&](Runtime& runtime) {
    const Plan plan = make_plan(plan_request(config.config, {}));
    Trainer trainer(config.config, runtime, plan);
    for (int i = 0; i < 3; ++i) trainer.train_step(false);
  });
  EXPECT_EQ(code, exit_code(ErrorKind::kData)) << "the default policy";
  EXPECT_NE(::testing::internal::GetCapturedStderr().find(bad), std::string::npos);
}

}  // namespace
}  // namespace permafrost
