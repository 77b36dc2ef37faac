// The projector trained on captions of photographs, in process: the same bits on any number of ranks and threads.
#include <cmath>

#include "tests/launch/text_training_fixture.h"

namespace permafrost {
namespace {

class ProjectorTraining : public TextModelTraining {
 protected:
  static Overrides settings(const Overrides& more = {}) {
    Overrides all = small_text("model.projector.text");
    for (const char* field : {"image_size=32", "patch=8", "dim=24", "depth=2", "heads=3", "mlp_dim=48"})
      all.push_back(std::string("model.projector.vision.") + field);
    for (const char* field : {"freeze=", "train.final_check.exchanged_images=true", "optimizer.lr=3e-2"})
      all.push_back(field);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(ProjectorTraining, LearnsTheSameOnAnyNumberOfRanks) {
  for (const char* kind : {"LINEAR", "MLP"}) {
    const Overrides all = settings({concat("model.projector.kind=", kind), "train.max_steps=6"});
    const TextRun one = train(all, 1, 1, true);
    ASSERT_EQ(one.losses.size(), 6u);
    ASSERT_EQ(one.validated.size(), 3u);
    // 264 bytes and marks are about equally likely; the spread of random logits (0.02 sqrt(width) each) moves it
    // little.
    EXPECT_NEAR(one.losses.front(), std::log(264.0), 0.2) << "nothing is known at the start";
    EXPECT_LT(one.validated.back(), one.validated.front()) << kind;
    ASSERT_TRUE(one.exchanged.has_value());
    EXPECT_NE(*one.exchanged, one.final_nats) << "the loss depends on the image";
    expect_same_on_other_ranks(all, one, true);
  }
}

TEST_F(ProjectorTraining, OnlyTheProjectorTrainsUnlessRulesSayMore) {
  with_trainer(settings(), 1, [](Trainer&, const config::Resolved&, const Plan& plan, Runtime&) {
    EXPECT_EQ(plan.trainable_params, 24 * 32 + 32);
    for (const ParamPlan& param : plan.params)
      EXPECT_EQ(param.trainable, param.name == "projector.0.weight" || param.name == "projector.0.bias") << param.name;
  });
  const TextRun all = train(
      settings({"freeze+={pattern: \"*\" trainable: true}", "optimizer.lr=3e-3", "train.max_steps=10"}), 1, 2, true);
  EXPECT_LT(all.losses.back(), all.losses.front() - 0.5) << "second stage: everything trains";
}

TEST_F(ProjectorTraining, StepsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  with_trainer(settings({"train.max_steps=8"}), 2,
               [](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
                 expect_steps_allocate_nothing(trainer, runtime);
               });
}

TEST_F(ProjectorTraining, NeedsItsImages) {
  std::filesystem::remove_all(photos() / "images");
  expect_refuses(settings(), 1, ErrorKind::kData, {"a folder of images is expected"});
}

}  // namespace
}  // namespace permafrost
