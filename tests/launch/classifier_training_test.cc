// A vision classifier trained on class labels, in process: the same bits on any number of ranks and threads, and what
// its validation counts.
#include "tests/launch/class_shards.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

struct ClassifierRun {
  std::vector<double> losses, accuracies;
  std::string adapter_sha256;
  FinalLoss final_loss;
};

class ClassifierTraining : public TrainerTest {
 protected:
  void SetUp() override {
    TrainerTest::SetUp();
    write_class_shards(photos(), shards());
  }
  std::filesystem::path shards() const { return folder_ / "shards"; }

  Overrides settings(const Overrides& more) const {
    Overrides all = classifier_settings(shards());
    for (const char* field : {"validation.every_steps=4", "validation.metric=CLASS_ACCURACY", "train.global_batch=10",
                              "train.micro_batch=2", "train.max_steps=8"})
      all.push_back(field);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  ClassifierRun train(int ranks, int threads, const Overrides& more = {}) const {
    ClassifierRun result;
    static int count = 0;
    const CheckpointStore store((folder_ / ("checkpoints" + std::to_string(count++))).string(), 1);
    with_ranks(ranks, threads, settings(more),
               [&](Trainer& trainer, const config::Resolved& config, const Plan&, Runtime& runtime) {
                 ClassifierRun mine;
                 while (trainer.step() < config.config.train().max_steps()) {
                   mine.losses.push_back(trainer.train_step(false).loss);
                   if (trainer.validation_due()) mine.accuracies.push_back(trainer.validate().value);
                 }
                 mine.adapter_sha256 = trainer.save(store);
                 mine.final_loss = trainer.measure_loss(true, 0);
                 if (runtime.first()) result = mine;
               });
    return result;
  }
};

TEST_F(ClassifierTraining, GivesTheSameBitsOnAnyNumberOfRanks) {
  const ClassifierRun one = train(1, 1);
  ASSERT_EQ(one.losses.size(), 8u);
  ASSERT_EQ(one.accuracies.size(), 2u);
  EXPECT_NEAR(one.losses.front(), std::log(6.0), 0.2) << "nothing is known at the start";
  for (const auto& [ranks, threads] : {std::pair(1, 2), std::pair(2, 1), std::pair(3, 1)}) {
    const ClassifierRun other = train(ranks, threads);
    EXPECT_EQ(other.losses, one.losses) << ranks;
    EXPECT_EQ(other.accuracies, one.accuracies) << ranks;
    EXPECT_EQ(other.adapter_sha256, one.adapter_sha256) << ranks;
    EXPECT_EQ(other.final_loss.nats_per_token, one.final_loss.nats_per_token) << ranks;
    EXPECT_EQ(other.final_loss.exchanged, one.final_loss.exchanged) << ranks;
  }
}

TEST_F(ClassifierTraining, GivesTheSameBitsWithSeveralSupervisedBlocks) {
  const Overrides both{"model.vision_classifier.supervised_blocks=2"};
  const ClassifierRun one = train(1, 1, both), two = train(2, 1, both), last_alone = train(1, 1);
  EXPECT_EQ(two.losses, one.losses);
  EXPECT_EQ(two.accuracies, one.accuracies);
  EXPECT_EQ(two.adapter_sha256, one.adapter_sha256);
  EXPECT_EQ(two.final_loss.nats_per_token, one.final_loss.nats_per_token);
  EXPECT_NE(one.adapter_sha256, last_alone.adapter_sha256);
  // A mean over blocks, per label of the image: nothing is counted twice.
  EXPECT_NEAR(one.losses.front(), std::log(6.0), 0.2);
  EXPECT_NEAR(one.final_loss.nats_per_token, last_alone.final_loss.nats_per_token, 0.5);
  EXPECT_EQ(one.final_loss.samples, 12);
}

TEST_F(ClassifierTraining, LearnsWhatTheImagesShow) {
  const ClassifierRun run = train(1, 2,
                                  {"train.max_steps=160", "train.global_batch=12", "train.micro_batch=12",
                                   "validation.every_steps=40", "optimizer.lr=3e-3"});
  EXPECT_LT(run.losses.back(), 0.1);
  EXPECT_EQ(run.accuracies.back(), 1.0) << "twelve images can be learned by heart";
  EXPECT_LT(run.accuracies.front(), run.accuracies.back());
  EXPECT_LT(run.final_loss.nats_per_token, 0.1);
  EXPECT_EQ(run.final_loss.samples, 12);
  ASSERT_TRUE(run.final_loss.exchanged.has_value());
  EXPECT_GT(*run.final_loss.exchanged, 1.0) << "of another image nothing of it is true";
}

TEST_F(ClassifierTraining, CountsOnlyLabelsThatAreThere) {
  // All in one micro-batch: the loss is a mean over the labels that are there, whatever else is in the batch.
  const Overrides all{"train.global_batch=12", "train.micro_batch=12", "train.max_steps=1", "validation.every_steps=1"};
  const ClassifierRun run = train(1, 1, all);
  EXPECT_NEAR(run.losses.front(), std::log(6.0), 0.2);
  const double counted = run.accuracies.front();
  // Of 36 labels those of black things' relations are missing.
  int64_t labels = 0;
  std::ifstream captions(photos() / "captions.json");
  const Json annotations = parse_json(captions)["annotations"];
  for (size_t i = 0; i < annotations.size(); i += 2)
    labels += 3 - std::ranges::count(classes_of_caption(annotations[i]["caption"]), kIgnoredLabel);
  ASSERT_LT(labels, 36);
  const double correct = counted * static_cast<double>(labels);
  EXPECT_NEAR(correct, std::round(correct), 1e-9) << "a share of the " << labels << " labels that are there";
}

TEST_F(ClassifierTraining, StepsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  with_trainer(settings({}), 2, [](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
    expect_steps_allocate_nothing(trainer, runtime);
  });
}

TEST_F(ClassifierTraining, RefusesLabelsThatDoNotFit) {
  const auto refused = [&](const Overrides& more, const std::vector<std::string>& parts) {
    expect_refuses(settings(more), 1, ErrorKind::kData, parts);
  };
  refused({"model.vision_classifier.labels=2"}, {"3 class labels", "model.vision_classifier.labels = 2"});
  write_class_shards(photos(), folder_ / "fewer", 2);
  refused({"evaluation.data.shards=" + (folder_ / "fewer").string()},
          {"evaluation.data: images must have", "got 2 class labels"});
  refused({"model.vision_classifier.classes=3"}, {"classes must be 0 to 2", "of sample "});
}

TEST(CountCorrect, TakesTheFirstOfEqualLogitsAndNoIgnoredLabels) {
  std::vector<float> logits{1, 2, 3, 3, 1, 3, 0, 0, 0, 5, 9, 1};
  std::vector<int32_t> labels{2, 2, 0, kIgnoredLabel};
  const Tensor l(logits.data(), DType::kF32, Shape{2, 2, 3}), wanted(labels.data(), DType::kI32, Shape{2, 2});
  EXPECT_EQ(count_correct(l, wanted, wanted.dim(1)), 2);
  labels = {0, 0, 1, 1};
  EXPECT_EQ(count_correct(l, wanted, wanted.dim(1)), 2);
}

TEST(CountCorrect, LooksAtTheLastSupervisedBlockAlone) {
  // Two images with one label each, two blocks: the first block is right about both, the last about the second.
  std::vector<float> logits{9, 0, 0, 9, 0, 9, 0, 9};
  std::vector<int32_t> labels{0, 0, 1, 1};
  const Tensor l(logits.data(), DType::kF32, Shape{2, 2, 2}), wanted(labels.data(), DType::kI32, Shape{2, 2});
  EXPECT_EQ(count_correct(l, wanted, 1), 1);
  EXPECT_EQ(count_correct(l, wanted, 2), 3);
}

}  // namespace
}  // namespace permafrost
