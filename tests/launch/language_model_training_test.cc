// A language model trained on captions without images, in process: the same bits on any number of ranks and threads.
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

struct LanguageRun {
  std::vector<double> losses, validated;
  double final_nats = 0;
  std::string adapter_sha256;
  friend bool operator==(const LanguageRun&, const LanguageRun&) = default;
};

class LanguageModelTraining : public TrainerTest {
 protected:
  /// The text part of the quickstart by itself.
  static Overrides settings() {
    Overrides all{"train.final_check.exchanged_images=false", "validation.every_steps=2", "validation.samples=7",
                  "train.global_batch=10", "train.micro_batch=2"};
    for (const char* field : {"vocab=264", "layers=2", "hidden=32", "heads=4", "ffn=64", "word_embed_proj_dim=32",
                              "do_layer_norm_before=true", "final_layer_norm=true", "max_positions=256"})
      all.push_back(std::string("model.language_model.text.") + field);
    return all;
  }

  LanguageRun train(int ranks, int threads) const {
    LanguageRun result;
    static int count = 0;
    const CheckpointStore store((folder_ / ("checkpoints" + std::to_string(count++))).string(), 1);
    with_ranks(ranks, threads, settings(),
               [&](Trainer& trainer, const config::Resolved& config, const Plan&, Runtime& runtime) {
                 LanguageRun mine;
                 while (trainer.step() < config.config.train().max_steps()) {
                   mine.losses.push_back(trainer.train_step(false).loss);
                   if (!trainer.validation_due()) continue;
                   const ValidationMetrics metrics = trainer.validate();
                   EXPECT_EQ(metrics.samples, 7);
                   mine.validated.push_back(metrics.value);
                 }
                 mine.adapter_sha256 = trainer.save(store);
                 mine.final_nats = trainer.measure_loss(false, 0).nats_per_token;
                 if (runtime.first()) result = mine;
               });
    return result;
  }
};

TEST_F(LanguageModelTraining, NeedsNoImagesAndLearnsTheSameOnAnyNumberOfRanks) {
  std::filesystem::remove_all(photos() / "images");
  const LanguageRun one = train(1, 1);
  ASSERT_EQ(one.losses.size(), 4u);
  ASSERT_EQ(one.validated.size(), 2u);
  EXPECT_LT(one.losses.back(), one.losses.front());
  EXPECT_NEAR(one.losses.front(), std::log(264.0), 0.2) << "nothing is known at the start";
  EXPECT_FALSE(one.adapter_sha256.empty());
  EXPECT_EQ(train(1, 2), one);
  EXPECT_EQ(train(2, 1), one);
  EXPECT_EQ(train(3, 1), one);
}

TEST_F(LanguageModelTraining, StoresWhatItTrainsUnderTheNamesOfABackbone) {
  with_trainer(settings(), 1, [](Trainer&, const config::Resolved&, const Plan& plan, Runtime&) {
    EXPECT_EQ(plan.trainable_params, plan.total_params);
    for (const ParamPlan& param : plan.params) EXPECT_TRUE(param.name.starts_with("text.model.decoder.")) << param.name;
  });
}

}  // namespace
}  // namespace permafrost
