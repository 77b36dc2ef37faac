#pragma once
#include <optional>
#include <string>
#include <vector>

#include "tests/launch/trainer_fixture.h"

namespace permafrost {

/// What a training run of a model of texts shows; the same bits whatever it ran on.
struct TextRun {
  std::vector<double> losses, validated;
  int64_t validated_samples = 0;  ///< each time
  double final_nats = 0;
  std::optional<double> exchanged;  ///< nats with the images of other samples
  std::string adapter_sha256;
  friend bool operator==(const TextRun&, const TextRun&) = default;
};

/// Models of texts on the generated photographs, in process.
class TextModelTraining : public TrainerTest {
 protected:
  /// Sizes of a small decoder over bytes, `at` being its section, and what is common to all runs.
  static Overrides small_text(const std::string& at) {
    Overrides all{"train.final_check.exchanged_images=false", "validation.every_steps=2", "validation.samples=7",
                  "train.global_batch=10", "train.micro_batch=2"};
    for (const char* field : {"vocab=264", "layers=2", "hidden=32", "heads=4", "ffn=64", "word_embed_proj_dim=32",
                              "do_layer_norm_before=true", "final_layer_norm=true", "max_positions=512"})
      all.push_back(at + "." + field);
    return all;
  }

  /// Trains, validates where it is due, saves and measures the loss; `exchanged`: that with other images too.
  TextRun train(const Overrides& settings, int ranks, int threads, bool exchanged = false) const {
    TextRun result;
    static int count = 0;
    const CheckpointStore store((folder_ / ("checkpoints" + std::to_string(count++))).string(), 1);
    with_ranks(ranks, threads, settings,
               [&](Trainer& trainer, const config::Resolved& config, const Plan&, Runtime& runtime) {
                 TextRun mine;
                 while (trainer.step() < config.config.train().max_steps()) {
                   mine.losses.push_back(trainer.train_step(false).loss);
                   if (!trainer.validation_due()) continue;
                   const ValidationMetrics metrics = trainer.validate();
                   mine.validated.push_back(metrics.value);
                   mine.validated_samples = metrics.samples;
                 }
                 mine.adapter_sha256 = trainer.save(store);
                 const FinalLoss loss = trainer.measure_loss(exchanged, 0);
                 mine.final_nats = loss.nats_per_token;
                 mine.exchanged = loss.exchanged;
                 if (runtime.first()) result = mine;
               });
    return result;
  }

  void expect_same_on_other_ranks(const Overrides& settings, const TextRun& one, bool exchanged = false) const {
    EXPECT_FALSE(one.adapter_sha256.empty());
    for (const auto& [ranks, threads] : {std::pair(1, 2), std::pair(2, 1), std::pair(3, 1)})
      EXPECT_EQ(train(settings, ranks, threads, exchanged), one) << ranks << " ranks, " << threads << " threads";
  }
};

}  // namespace permafrost
