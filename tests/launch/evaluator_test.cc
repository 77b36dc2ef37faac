// The evaluator in process: with the memory of a training run, and against weights from its checkpoint.
#include "launch/evaluation/evaluator.h"

#include <atomic>

#include "core/device/cuda.h"
#include "core/device/cudnn.h"
#include "tests/launch/caption_shards.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

class EvaluatorTest : public TrainerTest {
 protected:
  static Overrides settings(const Overrides& more = {}) {
    Overrides all{"evaluation.batch=3", "evaluation.decoding.beams=2", "evaluation.decoding.max_new_tokens=7",
                  "data.image_policy=FAIL"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static std::vector<std::string> texts_of(const Evaluation& evaluation) {
    std::vector<std::string> texts;
    for (const EvaluatedText& text : evaluation.texts) texts.push_back(concat(text.result.text, '|', text.score));
    return texts;
  }
};

/// Connectors alone train: frozen weights and working copies are both lent.
TEST_F(EvaluatorTest, SeesTheWeightsOfATrainingRunAsTheyAre) {
  const Overrides frozen{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}",
                         "quirks.vis_row=PUBLISHED", "model.epalm.end_layer=2", "optimizer.lr=0.05"};
  const std::string folder = (folder_ / "checkpoints").string();
  std::vector<std::string> lent, loaded, before;
  with_trainer(settings(frozen), 1,
               [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
                 Evaluator evaluator(config.config, runtime, trainer.memory(), plan);
                 EXPECT_GT(evaluator.plan().memory.state, 0);
                 before = texts_of(evaluator.run(0, false));
                 std::vector<double> losses;
                 while (trainer.step() < config.config.train().max_steps())
                   losses.push_back(trainer.train_step(false).loss);
                 lent = texts_of(evaluator.run(0, false));
                 const CheckpointStore store(folder, 1);
                 trainer.save(store);
               });
  EXPECT_NE(before, lent);
  EXPECT_EQ(run_ranks({}, {},
                      [&](Runtime& runtime) {
                        Overrides adapter = settings(frozen);
                        adapter.push_back("weights.adapter=" + folder + "/step-00000004/adapter.safetensors");
                        const config::Resolved config = resolved(adapter);
                        Evaluator evaluator(config.config, runtime);
                        loaded = texts_of(evaluator.run(0, false));
                      }),
            0);
  EXPECT_EQ(lent, loaded);
  EXPECT_EQ(lent.size(), 12u);
}

/// Looking at texts on the way changes no bit of training.
TEST_F(EvaluatorTest, LeavesTrainingAsItIs) {
  std::vector<double> without, with;
  with_trainer(settings(), 1, [&](Trainer& trainer, const config::Resolved& config, const Plan&, Runtime&) {
    while (trainer.step() < config.config.train().max_steps()) without.push_back(trainer.train_step(false).loss);
  });
  with_trainer(settings(), 1,
               [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
                 Evaluator evaluator(config.config, runtime, trainer.memory(), plan);
                 while (trainer.step() < config.config.train().max_steps()) {
                   evaluator.run(2, false);
                   with.push_back(trainer.train_step(false).loss);
                 }
               });
  EXPECT_EQ(with, without);
}

TEST_F(EvaluatorTest, ExchangedImagesAreThoseOfOthers) {
  EXPECT_EQ(run_ranks({}, {},
                      [&](Runtime& runtime) {
                        const config::Resolved config = resolved(settings());
                        Evaluator evaluator(config.config, runtime);
                        const Evaluation plain = evaluator.run(0, false), exchanged = evaluator.run(0, true);
                        ASSERT_EQ(plain.texts.size(), exchanged.texts.size());
                        for (size_t i = 0; i < plain.texts.size(); ++i) {
                          EXPECT_EQ(plain.texts[i].shown, plain.texts[i].image);
                          EXPECT_NE(exchanged.texts[i].shown, exchanged.texts[i].image);
                          // Nothing but the image decides about a caption.
                          for (const EvaluatedText& other : plain.texts) {
                            if (other.image == exchanged.texts[i].shown) {
                              EXPECT_EQ(other.result.text, exchanged.texts[i].result.text);
                            }
                          }
                        }
                        EXPECT_GE(plain.value("exact_match"), 0.0);
                        EXPECT_TRUE(testing::throws_error([&] { plain.value("vqa_accuracy"); }, ErrorKind::kConfig,
                                                          {"the data have the metrics bleu_1"}));
                      }),
            0);
}

TEST_F(EvaluatorTest, TextsDoNotDependOnTheSizeOfBatches) {
  std::vector<std::vector<std::string>> all;
  for (const char* batch : {"evaluation.batch=1", "evaluation.batch=3", "evaluation.batch=8"})
    for (const char* compute : {"precision.compute=FP32", "precision.compute=AUTO"})
      EXPECT_EQ(run_ranks({}, {},
                          [&](Runtime& runtime) {
                            const config::Resolved config = resolved(settings({batch, compute}));
                            all.push_back(texts_of(Evaluator(config.config, runtime).run(0, false)));
                          }),
                0);
  for (size_t i = 2; i < all.size(); ++i) EXPECT_EQ(all[i], all[i % 2]);
}

/// What is left out of training is there to be looked at.
TEST_F(EvaluatorTest, LooksAtAllDataWhateverShareIsTrainedOn) {
  for (const char* share : {"data.train_fraction=0.25", "data.train_first=3"})
    EXPECT_EQ(run_ranks({}, {},
                        [&](Runtime& runtime) {
                          const config::Resolved config = resolved(settings({share}));
                          Evaluator evaluator(config.config, runtime);
                          EXPECT_EQ(evaluator.data().dataset->images(), 12);
                          EXPECT_EQ(evaluator.run(0, false).texts.size(), 12u) << share;
                        }),
              0);
}

TEST_F(EvaluatorTest, RefusesPlansThatPlaceWeightsDifferently) {
  with_trainer(settings(), 1, [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime& runtime) {
    const config::Resolved other =
        resolved(settings({"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}"}));
    EXPECT_TRUE(testing::throws_error([&] { Evaluator(other.config, runtime, trainer.memory(), plan); },
                                      ErrorKind::kInvalidArgument,
                                      {"StepMemory: plans that share weights must place parameter"}));
  });
}

TEST_F(EvaluatorTest, MemoryThatIsShortIsRefusedBeforeItIsTaken) {
  with_trainer(settings(), 1,
               [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
                 const auto alone = [](const Plan& one) {
                   return one.memory.node(1) + process_constant_bytes(one.world.device);
                 };
                 const Evaluator with_room(config.config, runtime, trainer.memory(), plan);
                 const int64_t fits_either = std::max(alone(plan), alone(with_room.plan()));
                 const auto limited = [&](int64_t bytes) {
                   return resolved(settings({concat("parallel.memory_limit_bytes=", bytes)}));
                 };
                 const config::Resolved small = limited(fits_either), enough = limited(2 * fits_either);
                 EXPECT_TRUE(testing::throws_error(
                     [&] { Evaluator(small.config, runtime, trainer.memory(), plan); }, ErrorKind::kConfig,
                     {"memory: 1 ranks of a node need ", " for training and for generating texts beside it"}));
                 EXPECT_NO_THROW(Evaluator(enough.config, runtime, trainer.memory(), plan));
               });
}

/// Validation looks at one score of all: it does not pay for those of groups, and still says at once which do not
/// exist.
TEST_F(EvaluatorTest, ScoresNoGroupsWithTheWeightsOfATrainingRun) {
  write_caption_shard(photos(), folder_ / "shards", {"a", "b"}, {R"({"kind": 1})", R"({"kind": 2})"});
  const auto by = [&](const std::string& field) {
    return settings({"evaluation.data.format=SHARDS", "evaluation.data.shards=" + (folder_ / "shards").string(),
                     "evaluation.group_by=" + field});
  };
  with_trainer(
      by("kind"), 1, [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime& runtime) {
        EXPECT_EQ(Evaluator(config.config, runtime).run(0, false).groups.size(), 2u);
        Evaluator lent(config.config, runtime, trainer.memory(), plan);
        EXPECT_EQ(lent.run(0, false).groups.size(), 0u);
        const config::Resolved wrong = resolved(by("colour"));
        EXPECT_TRUE(testing::throws_error([&] { Evaluator(wrong.config, runtime, trainer.memory(), plan); },
                                          ErrorKind::kConfig, {"evaluation.group_by", "(kind); got \"colour\""}));
      });
}

class EvaluatorCuda : public EvaluatorTest {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    EvaluatorTest::SetUp();
  }
};

TEST_F(EvaluatorCuda, RanksThatComputeAttentionOtherwiseAreRefused) {
  if (!cuda::find_cudnn().missing.empty() || cuda::device_info(0).major != 9) GTEST_SKIP() << "no cuDNN here";
  const Overrides config = on_smaller_model(
      settings({"parallel.device=CUDA", "parallel.tune_products=false", "precision.compute=BF16",
                "parallel.cuda_graphs=false", "parallel.attention=OWN", "evaluation.decoding.max_new_tokens=2"}));
  std::atomic<int> alike = 0;
  EXPECT_TRUE(testing::throws_error(
      [&] {
        with_ranks(2, 1, config,
                   [&](Trainer& trainer, const config::Resolved& resolved, const Plan& plan, Runtime& runtime) {
                     Evaluator evaluator(resolved.config, runtime, trainer.memory(), plan);
                     evaluator.run(0, false);
                     ++alike;
                     if (runtime.first()) cuda::use_cudnn(*runtime.stream->queue(), cuda::CudnnUse::kAlways);
                     evaluator.run(0, false);
                   });
      },
      ErrorKind::kConfig,
      {"attention: all ranks must compute a call by the same library",
       " on rank 0, own kernels on rank 1 (it is not allowed (parallel.attention: OWN))"}));
  EXPECT_EQ(alike, 2);
}

}  // namespace
}  // namespace permafrost
