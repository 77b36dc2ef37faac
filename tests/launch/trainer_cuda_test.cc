// Trainers whose programs run on a GPU (or its emulation): what they learn, and that it depends on no rank.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/device/cuda.h"
#include "core/device/cudnn.h"
#include "tests/launch/run_program.h"
#include "tests/launch/trainer_fixture.h"
#include "tests/support/long_stretches.h"

namespace permafrost {
namespace {

struct Learned {
  std::vector<double> losses, norms, scales, device_ms;
  int64_t scale_repeats = 0;
  std::string adapter_sha256;
  int64_t graph_launches = 0;
};

class TrainerCuda : public TrainerTest {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    TrainerTest::SetUp();
  }
  /// Short texts, few samples.
  static Overrides small(const Overrides& more) {
    Overrides all{"train.global_batch=2", "train.micro_batch=1", "train.max_steps=3"};
    all.insert(all.end(), more.begin(), more.end());
    return on_smaller_model(all);
  }
  /// Measuring takes the emulation long.
  static Overrides on_gpu(Overrides more) {
    more.insert(more.begin(), {"parallel.device=CUDA", "parallel.tune_products=false"});
    return small(more);
  }
  static Overrides tuned() { return on_gpu({"parallel.tune_products=true"}); }
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
      run.device_ms.push_back(trainer.last_step().device_ms);
    }
  }
  /// A run on a GPU with nothing special, once for all tests.
  const Learned& plain_run() const {
    static const Learned run = train(on_gpu({}));
    return run;
  }
  Learned train(const Overrides& more) const {
    Learned run;
    const CheckpointStore store = new_store();
    with_trainer(more, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      step(trainer, 3, run);
      run.adapter_sha256 = trainer.save(store);
      run.graph_launches = trainer.graph_launches();
    });
    return run;
  }
  /// A run of two ranks that gather units from each other's devices gives what `resident` gave, with graphs and
  /// without.
  void expect_same_gathered(const Overrides& more, const Learned& resident) const {
    for (const bool graphs : {true, false}) {
      Learned gathered;
      const CheckpointStore store = new_store();
      Overrides config = more;
      config.push_back(concat("parallel.cuda_graphs=", graphs ? "true" : "false"));
      with_ranks(2, 1, config, [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
        ASSERT_FALSE(plan.programs[0].gathers.empty());
        Learned mine;
        step(trainer, 3, mine);
        EXPECT_TRUE(trainer.changed_frozen_units().empty());
        mine.adapter_sha256 = trainer.save(store);
        const int64_t segments = std::ssize(testing::long_stretches(plan.programs[0]));
        EXPECT_GT(segments, 4);
        EXPECT_EQ(trainer.graph_launches(), graphs ? (segments + 2) * (3 - 1) : 0) << "of a program, and behind a vote";
        EXPECT_EQ(notes_with(trainer, "devices gather sharded weights from each other"), graphs ? 1 : 0);
        if (runtime.first()) gathered = mine;
      });
      expect_same_bits(gathered, resident);
    }
  }
  static int notes_with(const Trainer& trainer, const std::string& part) {
    return static_cast<int>(std::ranges::count_if(
        trainer.notes(), [&](const std::string& note) { return note.find(part) != std::string::npos; }));
  }
  /// Of three steps of two micro-batches on one rank. The first step measures before. Programs: neither what measures
  /// nor what sums first; and behind each vote but the first all there is, as one.
  static constexpr int64_t kGraphsOf3Steps = (3 * 2 - 1) + (3 - 1);
  static void expect_same_bits(const Learned& got, const Learned& want) {
    EXPECT_EQ(got.losses, want.losses);
    EXPECT_EQ(got.norms, want.norms);
    EXPECT_EQ(got.scales, want.scales);
    EXPECT_EQ(got.adapter_sha256, want.adapter_sha256);
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
  const Learned cpu = train(small({}));
  const Learned& gpu = plain_run();
  expect_close(gpu.losses, cpu.losses, 2e-5);
  expect_close(gpu.norms, cpu.norms, 1e-4);
  EXPECT_EQ(train(on_gpu({})).adapter_sha256, gpu.adapter_sha256) << "the same bits on every run";
  EXPECT_EQ(cpu.device_ms, std::vector<double>(cpu.losses.size(), 0.0));
  for (const double ms : gpu.device_ms) EXPECT_GT(ms, 0);
}

// bf16 keeps eight bits of every activation; the loss is a mean over some hundred tokens of errors that are
// independent.
TEST_F(TrainerCuda, LearnsInBf16) {
  const Learned &f32 = plain_run(), bf16 = train(on_gpu({"precision.compute=BF16"}));
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

/// As when texts are generated of a shape that one cuDNN refuses.
TEST_F(TrainerCuda, RanksThatPartInAValidationAreRefused) {
  if (!cuda::find_cudnn().missing.empty() || cuda::device_info(0).major != 9) GTEST_SKIP() << "no cuDNN here";
  const Overrides config = on_gpu({"precision.compute=BF16", "parallel.cuda_graphs=false", "parallel.attention=OWN",
                                   "validation.every_steps=1", "validation.samples=2"});
  std::atomic<int> alike = 0;
  EXPECT_TRUE(testing::throws_error(
      [&] {
        with_ranks(2, 1, config, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
          trainer.validate();
          ++alike;
          if (runtime.first()) cuda::use_cudnn(*runtime.stream->queue(), cuda::CudnnUse::kAlways);
          trainer.validate();
        });
      },
      ErrorKind::kConfig,
      {"attention: all ranks must compute a call by the same library",
       " on rank 0, own kernels on rank 1 (it is not allowed (parallel.attention: OWN))"}));
  EXPECT_EQ(alike, 2);
}

TEST_F(TrainerCuda, GraphsChangeNoBit) {
  const Learned &graphs = plain_run(), kernels = train(on_gpu({"parallel.cuda_graphs=false"}));
  expect_same_bits(graphs, kernels);
  EXPECT_EQ(kernels.graph_launches, 0);
  EXPECT_EQ(graphs.graph_launches, kGraphsOf3Steps);
}

/// A scale of the loss goes off the gradients again. Here it is twice as large in every step until it is too large,
/// in the second at first (see above for how large it can be).
TEST_F(TrainerCuda, GraphsChangeNoBitOfStepsThatAreScaled) {
  Overrides changing = on_gpu(in_f16({initial_scale(0x1p20), "precision.loss_scale.growth_steps=1"}));
  const Learned graphs = train(changing);
  EXPECT_LT(*std::ranges::min_element(graphs.scales), *std::ranges::max_element(graphs.scales));
  EXPECT_GT(graphs.scale_repeats, 0);
  EXPECT_EQ(graphs.graph_launches, kGraphsOf3Steps + 2 * graphs.scale_repeats);
  changing.push_back("parallel.cuda_graphs=false");
  expect_same_bits(graphs, train(changing));
}

/// Steps with samples that are left out and steps without are other segments.
TEST_F(TrainerCuda, GraphsChangeNoBitOfStepsThatLeaveSamplesOut) {
  std::ifstream captions(photos() / "captions.json");
  const auto json = parse_json(captions);
  for (const size_t bad : {3, 5, 7}) {
    const std::string name = json["images"][bad]["file_name"];
    std::ofstream(photos() / "images" / name) << "no photograph";
  }
  constexpr int kSteps = 5;
  const auto run = [&](const std::string& graphs) {
    Learned learned;
    const CheckpointStore store = new_store();
    with_trainer(on_gpu({"data.image_policy=SKIP", concat("train.max_steps=", kSteps), graphs}), 1,
                 [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
                   int left_out = 0;
                   for (int64_t i = 0, before = 0; i < kSteps; ++i, before = trainer.skipped_samples()) {
                     step(trainer, 1, learned);
                     left_out += trainer.skipped_samples() > before ? 1 : 0;
                   }
                   EXPECT_GE(left_out, 2) << "of which the second is a graph";
                   EXPECT_LE(left_out, kSteps - 2);
                   learned.adapter_sha256 = trainer.save(store);
                   learned.graph_launches = trainer.graph_launches();
                 });
    return learned;
  };
  const Learned graphs = run("parallel.cuda_graphs=true");
  expect_same_bits(graphs, run("parallel.cuda_graphs=false"));
  EXPECT_EQ(graphs.graph_launches, (kSteps * 2 - 1) + (kSteps - 2)) << "programs, and two segments behind votes";
}

/// Each rank has one of two micro-batches, and what is between exchanges: up to the norms, and from there on.
TEST_F(TrainerCuda, RanksAndTheirGraphsChangeNoBit) {
  for (const bool graphs : {true, false}) {
    Learned shared;
    const CheckpointStore store = new_store();
    with_ranks(2, 1, on_gpu({concat("parallel.cuda_graphs=", graphs ? "true" : "false")}),
               [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
                 Learned mine;
                 step(trainer, 3, mine);
                 EXPECT_EQ(trainer.graph_launches(), graphs ? (3 - 1) + 2 * (3 - 1) : 0);
                 mine.adapter_sha256 = trainer.save(store);
                 if (runtime.first()) shared = mine;
               });
    expect_same_bits(shared, plain_run());
  }
}

/// Sums in f32, which are exchanged as they are: then there is less to do, and on two ranks one work alone up to the
/// norms.
TEST_F(TrainerCuda, GraphsChangeNoBitOfPlainSums) {
  for (const int ranks : {1, 2}) {
    std::map<bool, Learned> runs;
    for (const bool graphs : {true, false})
      with_ranks(ranks, 1,
                 on_gpu({"parallel.reduction=PLAIN", concat("parallel.cuda_graphs=", graphs ? "true" : "false")}),
                 [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
                   Learned mine;
                   step(trainer, 2, mine);
                   if (runtime.first()) runs[graphs] = mine;
                   const int programs = ranks == 1 ? 2 * 2 - 1 : 2 - 1;
                   EXPECT_EQ(trainer.graph_launches(), graphs ? programs + 1 : 0);
                 });
    expect_same_bits(runs[true], runs[false]);
  }
}

TEST_F(TrainerCuda, GraphsOutliveWhatComesBetweenSteps) {
  Learned run, again;
  const CheckpointStore store = new_store();
  with_trainer(
      on_gpu({"validation.every_steps=1", "validation.samples=2"}), 1,
      [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
        for (int i = 0; i < 3; ++i) {
          step(trainer, 1, run);
          if (i < 2) trainer.validate();
          run.adapter_sha256 = trainer.save(store);
        }
        const int64_t launches = trainer.graph_launches();
        trainer.resume(store.path_of(2));
        step(trainer, 1, again);
        EXPECT_EQ(trainer.graph_launches(), launches + 1 + 1)
            << "a program runs anew before it is captured, as products may be others; work behind votes has none";
        again.adapter_sha256 = trainer.save(store);
      });
  expect_same_bits(run, plain_run());
  EXPECT_EQ(again.losses[0], run.losses[2]);
  EXPECT_EQ(again.norms[0], run.norms[2]);
  EXPECT_EQ(again.adapter_sha256, run.adapter_sha256);
}

struct SeesSteps final : ExecutorObserver {
  void begin_program(size_t /*bucket*/) override {}
  void begin_gather(size_t /*step*/) override {}
  void begin_step(size_t /*step*/) override {}
  void end_step(size_t /*step*/) override {}
};

TEST_F(TrainerCuda, NoGraphsUnderAnObserverOfSteps) {
  with_trainer(on_gpu({}), 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    SeesSteps observer;
    trainer.observe(&observer);
    Learned run;
    step(trainer, 1, run);
    EXPECT_EQ(trainer.graph_launches(), 0);
    trainer.observe(static_cast<ExecutorObserver*>(nullptr));
    step(trainer, 2, run);
    EXPECT_EQ(trainer.graph_launches(), (2 * 2 - 1) + 1);
    EXPECT_EQ(run.losses, plain_run().losses);
  });
}

TEST_F(TrainerCuda, TakesNoDeviceMemoryBehindTheFirstStep) {
  with_trainer(on_gpu({}), 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    Learned run;
    step(trainer, 1, run);
    const int64_t free_bytes = cuda::device_info(0).free_bytes;
    step(trainer, 2, run);
    EXPECT_EQ(cuda::device_info(0).free_bytes, free_bytes);
  });
}

TEST_F(TrainerCuda, FrozenUnitsComeThroughSlots) {
  const Overrides frozen{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}"};
  Overrides sharded = frozen;
  sharded.push_back("parallel.frozen_policy=SHARDED");
  const Learned resident = train(on_gpu(frozen)), slots = train(on_gpu(sharded));
  EXPECT_EQ(slots.losses, resident.losses);
  EXPECT_EQ(slots.adapter_sha256, resident.adapter_sha256);
  EXPECT_EQ(slots.graph_launches, resident.graph_launches) << "copies are part of the graphs";
  EXPECT_GT(slots.graph_launches, 0);
}

/// Two ranks whose devices hold a part of each unit, and gather it from each other.
TEST_F(TrainerCuda, DevicesGatherShardedUnits) {
  Overrides sharded{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}"};
  const Learned resident = train(on_gpu(sharded));
  sharded.insert(sharded.end(),
                 {"parallel.frozen_policy=SHARDED", "parallel.gather=PREFETCH", "parallel.collectives=HOST"});
  expect_same_gathered(on_gpu(sharded), resident);
}

TEST_F(TrainerCuda, TakesNoDeviceMemoryForGraphsBetweenGathersBehindTheFirstStep) {
  const Overrides sharded{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                          "parallel.frozen_policy=SHARDED", "parallel.gather=PREFETCH", "parallel.collectives=HOST"};
  with_ranks(2, 1, on_gpu(sharded), [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
    Learned run;
    step(trainer, 1, run);
    const auto all_are_here = [&](const char* tag) { runtime.world.barrier(StreamView::caller(), tag).wait(); };
    all_are_here("captured");
    const int64_t free_bytes = cuda::device_info(0).free_bytes;
    all_are_here("looked");
    step(trainer, 1, run);
    EXPECT_EQ(cuda::device_info(0).free_bytes, free_bytes);
    all_are_here("end");
  });
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

/// Two steps and a checkpoint of a tuned run; `rest` is told its folder and what a third step gave.
class TunedTrainerCuda : public TrainerCuda {
 protected:
  void begin() {
    with_trainer(tuned(), 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      step(trainer, 2, before_);
      trainer.save(store_);
      step(trainer, 1, before_);
    });
  }
  Learned go_on(const Overrides& overrides, const CheckpointStore& store) const {
    Learned run;
    with_trainer(overrides, 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
      trainer.resume(store.path_of(2));
      step(trainer, 1, run);
      run.adapter_sha256 = trainer.save(store);
    });
    return run;
  }
  void replace_in(const std::string& file, const std::string& what, const std::string& by) const {
    const std::string path = store_.path_of(2) + "/" + file;
    std::string text = read_file(path);
    const size_t at = text.find(what);
    ASSERT_NE(at, std::string::npos) << what << " is not in " << text;
    std::ofstream(path) << text.replace(at, what.size(), by);
  }
  std::string products() const { return read_file(store_.path_of(2) + "/products.json"); }

  CheckpointStore store_ = new_store();
  Learned before_;
};

TEST_F(TunedTrainerCuda, AResumedRunHasTheProductsOfTheFirst) {
  begin();
  const std::string stored = products();
  EXPECT_NE(stored.find("\"tuned\":true"), std::string::npos) << stored;
  for (const Overrides& overrides : {tuned(), on_gpu({})}) {
    const Learned rest = go_on(overrides, store_);
    EXPECT_EQ(rest.losses[0], before_.losses[2]);
    EXPECT_EQ(rest.norms[0], before_.norms[2]);
    EXPECT_EQ(read_file(store_.path_of(3) + "/products.json"), stored);
  }
  // On two ranks, too.
  with_ranks(2, 1, tuned(), [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    Learned rest;
    trainer.resume(store_.path_of(2));
    step(trainer, 1, rest);
    EXPECT_EQ(rest.losses[0], before_.losses[2]);
  });
  // Through a run on CPU, which keeps what it does not need.
  go_on(small({}), store_);
  EXPECT_EQ(read_file(store_.path_of(3) + "/products.json"), stored);
}

TEST_F(TunedTrainerCuda, ProductsOfACheckpointAreCheckedAsTheRest) {
  begin();
  const std::string stored = products();
  replace_in("products.json", "\"gpu\":\"", "\"gpu\":\"Another ");
  const auto refused = [&](const std::vector<std::string>& parts) {
    ::testing::internal::CaptureStderr();
    RuntimeOptions options = runtime_options(resolved(tuned()).config.parallel());
    options.threads = 1;
    const int code = run_ranks({}, options, [&](Runtime& runtime) {
      on_rank(tuned(), runtime, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
        trainer.resume(store_.path_of(2));
      });
    });
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, exit_code(ErrorKind::kWeights)) << said;
    for (const std::string& part : parts) EXPECT_NE(said.find(part), std::string::npos) << said;
  };
  refused({"products.json is damaged: expected SHA-256"});
  // The file of another GPU, as its run would have written it.
  const std::string other = products();
  replace_in("position.json", sha256(stored.data(), stored.size()), sha256(other.data(), other.size()));
  ::testing::internal::CaptureStderr();
  const Learned rest = go_on(tuned(), store_);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("products: algorithms were chosen on Another "), std::string::npos) << said;
  expect_close({rest.losses[0]}, {before_.losses[2]}, 2e-5);
  std::filesystem::remove(store_.path_of(2) + "/products.json");
  refused({"cannot read", "products.json"});
}

TEST_F(TrainerCuda, Tf32IsPartOfWhatARunIs) {
  const CheckpointStore store = new_store();
  Learned tf32;
  with_trainer(on_gpu({"precision.f32_products=TF32"}), 1,
               [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
                 step(trainer, 3, tf32);
                 trainer.save(store);
               });
  const Learned f32 = train(on_gpu({}));
  // Eleven bits in every product of a forward pass, errors independent: the loss is a mean over some hundred tokens.
  expect_close(tf32.losses, f32.losses, 0x1p-10);
  EXPECT_TRUE(cuda::device_info(0).name != "emulated" || tf32.losses != f32.losses);
  with_trainer(on_gpu({}), 1, [&](Trainer& trainer, const config::Resolved&, const Plan&, Runtime&) {
    EXPECT_TRUE(testing::throws_error([&] { trainer.resume(store.path_of(3)); }, ErrorKind::kConfig,
                                      {"precision.f32_products: expected \"TF32\"; got not set"}));
  });
}

}  // namespace
}  // namespace permafrost
