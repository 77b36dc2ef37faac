#pragma once
#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "launch/gpu.h"
#include "launch/runtime.h"
#include "launch/sample_photos.h"
#include "launch/training/plan_setup.h"
#include "launch/training/trainer.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/inproc_group.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"
#include "tests/support/configs.h"
#include "tests/support/count_allocations.h"

namespace permafrost {

using Overrides = std::vector<std::string>;

/// `more` behind what makes the quickstart's model smaller, for the emulation of a GPU, which is slow.
inline Overrides on_smaller_model(const Overrides& more) {
  Overrides all{"model.epalm.vision.depth=2", "model.epalm.vision.mlp_dim=128", "model.epalm.text.layers=2",
                "model.epalm.text.ffn=128",   "model.epalm.features=2",         "model.epalm.end_layer=2",
                "data.max_text_tokens=32",    "data.length_buckets=32"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// Generated photographs and what is common to all runs on them.
class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    write_sample_photos(photos(), 12, 32, 42);
    write_byte_tokenizer(photos() / "tokenizer");
  }
  std::filesystem::path photos() const { return folder_ / "photos"; }

  /// The quickstart model with `more`, on the generated photographs.
  config::Resolved resolved(const Overrides& more) const {
    Overrides overrides{"data.root=" + photos().string(), "train.max_steps=4",   "schedule.warmup_steps=1",
                        "train.global_batch=8",           "train.micro_batch=4", "precision.compute=FP32"};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return config::load_config(testing::configs_folder() + "/quickstart.textproto", overrides);
  }

  using Body = std::function<void(Trainer&, const config::Resolved&, const Plan&, Runtime&)>;
  /// Makes this rank's trainer and gives it to `body`.
  void on_rank(const Overrides& more, Runtime& runtime, const Body& body) const {
    const config::Resolved config = resolved(more);
    PlanChoices choices;
    choices.world = runtime.place;
    choices.world.threads = runtime.pool.threads();
    const Plan plan = make_plan(plan_request(config.config, choices));
    Trainer trainer(config.config, runtime, plan);
    body(trainer, config, plan, runtime);
  }
  /// The same on one rank without a launcher.
  void with_trainer(const Overrides& more, int threads, const Body& body) const {
    RuntimeOptions options = runtime_options(resolved(more).config.parallel());
    options.threads = threads;
    EXPECT_EQ(run_ranks({}, options, [&](Runtime& runtime) { on_rank(more, runtime, body); }), 0);
  }

  /// A trainer on one rank ends within `steps` steps with the code of `kind`, and says all `parts`.
  void expect_refuses(const Overrides& more, int steps, ErrorKind kind, const std::vector<std::string>& parts) const {
    ::testing::internal::CaptureStderr();
    RuntimeOptions options = runtime_options(resolved(more).config.parallel());
    options.threads = 1;
    const int code = run_ranks({}, options, [&](Runtime& runtime) {
      on_rank(more, runtime, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
        for (int i = 0; i < steps; ++i) trainer.train_step(false);
      });
    });
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, exit_code(kind)) << said;
    for (const std::string& part : parts) EXPECT_NE(said.find(part), std::string::npos) << said;
  }

  /// with_trainer on ranks that are threads of this process, each with `threads` of its own.
  void with_ranks(int ranks, int threads, const Overrides& more, const Body& body) const {
    run_inproc(ranks, [&](Group& world) {
      ThreadPool pool(threads);
      HierarchicalGroup group(world, std::vector<int>(static_cast<size_t>(world.size()), 0), {});
      Runtime runtime{group, pool, {ranks, 1, threads}, group.node(), ""};
      runtime.place.device = program_device(resolved(more).config);
      const std::unique_ptr<Stream> gpu = open_gpu(runtime.place.device, world.rank());
      runtime.stream = gpu.get();
      on_rank(more, runtime, body);
    });
  }

  ScratchFolder folder_;
};

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

/// What trainers are asked to do without allocating.
inline std::vector<Overrides> allocation_cases() {
  const Overrides usual{"train.max_steps=8"};
  Overrides by_processor(usual), published(usual);
  by_processor.push_back("precision.compute=AUTO");
  // What the quickstart does not have: dropout in frozen parts, the published visual token, gradients for few.
  for (const char* more :
       {"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}", "quirks.frozen_dropout=true",
        "train.final_check.loss=false", "train.final_check.exchanged_images=false", "quirks.vis_row=PUBLISHED",
        "optimizer.clip_norm=0.5"})
    published.push_back(more);
  return {usual, by_processor, published};
}

/// Steps 3 to 6 of a new trainer allocate nothing on this rank's threads; libraries that count apart, in pieces of at
/// most 1 KiB. Needs can_count_allocations().
inline void expect_steps_allocate_nothing(Trainer& trainer, Runtime& runtime) {
  on_every_thread(runtime.pool, [] { testing::register_counted_thread(); });
  for (int i = 0; i < 3; ++i) trainer.train_step(false);
  for (int i = 3; i <= 6; ++i) {
    testing::begin_counting_allocations(testing::CountedThreads::kRegistered);
    trainer.train_step(false);
    const testing::AllocationCount count = testing::end_counting_allocations();
    EXPECT_EQ(count.calls, 0) << "step " << i << ": " << count.bytes << " bytes, largest " << count.largest;
    EXPECT_LE(count.library_largest, 1024) << "step " << i << ": " << count.library_calls << " by libraries";
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
}

}  // namespace permafrost
