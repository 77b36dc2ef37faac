// A language model trained on captions without images, in process, from scratch and by adaptors in a frozen one: the
// same bits on any number of ranks and threads.
#include <cmath>

#include "core/base/json.h"
#include "core/weights/safetensors.h"
#include "tests/launch/text_training_fixture.h"

namespace permafrost {
namespace {

class LanguageModelTraining : public TextModelTraining {
 protected:
  /// The text part of the quickstart by itself.
  static Overrides settings(const Overrides& more = {}) {
    Overrides all = small_text("model.language_model.text");
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static Overrides adapted(const Overrides& more = {}) {
    Overrides all = settings({"model.language_model.adapter.kind=NORMAL", "freeze="});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  /// A folder that has captions of these many bytes, names images and has none.
  std::filesystem::path write_long_captions(const std::vector<size_t>& lengths) const {
    Json images = Json::array(), annotations = Json::array();
    for (size_t i = 0; i < lengths.size(); ++i) {
      std::string caption;
      for (size_t word = i; caption.size() < lengths[i]; ++word) caption += concat(word % 10, " bottles, ");
      caption.resize(lengths[i], '.');
      images.push_back({{"id", i}, {"file_name", concat("never_written_", i, ".jpg")}});
      annotations.push_back({{"id", i}, {"image_id", i}, {"caption", caption}});
    }
    const std::filesystem::path folder = folder_ / "long";
    std::filesystem::create_directories(folder);
    write_file(folder / "captions.json", json_text(Json{{"images", images}, {"annotations", annotations}}));
    return folder;
  }
};

TEST_F(LanguageModelTraining, NeedsNoImagesAndLearnsTheSameOnAnyNumberOfRanks) {
  std::filesystem::remove_all(photos() / "images");
  const TextRun one = train(settings(), 1, 1);
  ASSERT_EQ(one.losses.size(), 4u);
  ASSERT_EQ(one.validated.size(), 2u);
  EXPECT_EQ(one.validated_samples, 7);
  EXPECT_LT(one.losses.back(), one.losses.front());
  // 264 bytes and marks are about equally likely; the spread of random logits (0.02 sqrt(width) each) moves it little.
  EXPECT_NEAR(one.losses.front(), std::log(264.0), 0.2) << "nothing is known at the start";
  expect_same_on_other_ranks(settings(), one);
}

TEST_F(LanguageModelTraining, StoresWhatItTrainsUnderTheNamesOfABackbone) {
  with_trainer(settings(), 1, [](Trainer&, const config::Resolved&, const Plan& plan, Runtime&) {
    EXPECT_EQ(plan.trainable_params, plan.total_params);
    for (const ParamPlan& param : plan.params) EXPECT_TRUE(param.name.starts_with("text.model.decoder.")) << param.name;
  });
}

TEST_F(LanguageModelTraining, AdaptorsLearnTheSameOnAnyNumberOfRanks) {
  std::filesystem::remove_all(photos() / "images");
  for (const char* kind : {"NORMAL", "SCALED_PARALLEL"}) {
    const Overrides all = adapted({concat("model.language_model.adapter.kind=", kind), "train.max_steps=6",
                                   "model.language_model.adapter.factor=2", "optimizer.lr=3e-2"});
    const TextRun one = train(all, 1, 1);
    ASSERT_EQ(one.losses.size(), 6u);
    EXPECT_LT(one.losses.back(), one.losses.front() - 0.1) << kind;
    expect_same_on_other_ranks(all, one);
  }
}

TEST_F(LanguageModelTraining, OnlyAdaptorsTrainAndBelongToTheCheckpoint) {
  with_trainer(adapted(), 1, [&](Trainer& trainer, const config::Resolved&, const Plan& plan, Runtime&) {
    // Two layers of 32 -> 8 -> 32.
    EXPECT_EQ(plan.trainable_params, 2 * (2 * 32 * 8 + 8 + 32));
    const CheckpointStore store((folder_ / "adapted").string(), 1);
    trainer.train_step(false);
    trainer.save(store);
    const SafetensorsReader saved((std::filesystem::path(*store.latest()) / "adapter.safetensors").string());
    std::vector<std::string> names;
    for (const StoredTensor& tensor : saved.tensors()) names.push_back(tensor.name);
    std::ranges::sort(names);
    std::vector<std::string> wanted;
    for (int layer = 0; layer < 2; ++layer)
      for (const char* part : {"0.bias", "0.weight", "2.bias", "2.weight"})
        wanted.push_back(concat("model_text.model.decoder.layers.", layer, ".fc2.1.adapter.", part));
    EXPECT_EQ(names, wanted);
  });
}

TEST_F(LanguageModelTraining, TextsOfTwoThousandTokensNeedNoImages) {
  const std::string folder = write_long_captions({2046, 500, 1000, 700}).string();
  const Overrides all =
      adapted({"data.root=" + folder, "data.tokenizer.root=" + (photos() / "tokenizer").string(),
               "data.max_text_tokens=2048", "data.length_buckets=512,1024,2048", "data.long_text=FAIL",
               "model.language_model.text.max_positions=2048", "train.global_batch=4", "train.micro_batch=1",
               "train.max_steps=2", "validation.samples=0", "optimizer.lr=3e-2"});
  const TextRun one = train(all, 1, 2);
  ASSERT_EQ(one.losses.size(), 2u);
  EXPECT_NEAR(one.losses.front(), std::log(264.0), 0.2);
  EXPECT_LT(one.final_nats, one.losses.front());
  EXPECT_EQ(train(all, 2, 1), one);
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(folder) / "images"));
}

TEST_F(LanguageModelTraining, StepsAllocateNothing) {
  if (!testing::can_count_allocations()) GTEST_SKIP() << "allocations cannot be counted under sanitizers";
  with_trainer(adapted({"train.max_steps=8"}), 2,
               [](Trainer& trainer, const config::Resolved&, const Plan&, Runtime& runtime) {
                 expect_steps_allocate_nothing(trainer, runtime);
               });
}

}  // namespace
}  // namespace permafrost
