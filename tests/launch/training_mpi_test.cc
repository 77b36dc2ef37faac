// Training on several ranks as users start it: through launch/mpirun.sh.
#include <chrono>

#include "launch/training/plan_setup.h"
#include "tests/launch/training_fixture.h"

namespace permafrost {
namespace {

TEST_F(Training, ResumesBitForBitOnTwoRanks) { expect_resumes_bit_for_bit(on_ranks(2)); }
TEST_F(Training, KeepsThePreviousCheckpointWhenTheDiskIsFull) { expect_keeps_the_previous_checkpoint(on_ranks(2)); }
TEST_F(Training, NamesTheFirstValueThatIsNotFinite) { expect_names_the_first_value_that_is_not_finite(on_ranks(2)); }

TEST_F(Training, MoreRanksThanMicroBatchesIsFine) {
  ASSERT_TRUE(ends(train("--set train.global_batch=4", "one"), 0, {}));
  EXPECT_TRUE(ends(train("--set train.global_batch=4", "three", on_ranks(3)), 0, {"3 ranks x "}));
  EXPECT_EQ(losses("one"), losses("three"));
  EXPECT_EQ(adapter_hash("one"), adapter_hash("three"));
}

TEST_F(Training, MoreRanksThanSamplesIsFine) {
  Json all = captions();
  for (const char* list : {"images", "annotations"}) all[list].erase(all[list].begin() + 1, all[list].end());
  ASSERT_EQ(all["annotations"][0]["image_id"], all["images"][0]["id"]);
  write_file(photos() / "captions.json", json_text(all));
  ASSERT_TRUE(ends(train("", "one"), 0, {"data: 1 samples, 1 images", "step 4/4"}));
  EXPECT_TRUE(ends(train("", "three", on_ranks(3)), 0, {"data: 1 samples, 1 images", "3 ranks x ", "step 4/4"}));
  EXPECT_EQ(losses("one").size(), 4u);
  EXPECT_EQ(losses("one"), losses("three"));
  EXPECT_EQ(adapter_hash("one"), adapter_hash("three"));
}

TEST_F(Training, MemoryOfARankIsWhatThePlanForecasts) {
  // A frozen text model that the ranks share, large beside the constant; one bucket, so that the whole arena is
  // touched.
  const Outcome given = train(
      "--set model.epalm.text.vocab=80000 --set model.epalm.text.hidden=512 --set "
      "model.epalm.text.word_embed_proj_dim=512"
      " --set 'freeze[0].pattern=connector*' --set 'freeze+={pattern: \"*\" trainable: false}'"
      " --set data.max_text_tokens=64 --set data.length_buckets=64",
      "run", on_ranks(2));
  ASSERT_TRUE(ends(given, 0, {"2 ranks x "}));
  const auto summary = parse_json(read_file(dir() / "summary.json"));
  const auto frozen = parse_json(read_file(dir() / "plan.json"))["node_memory"]["frozen_bytes"].get<int64_t>();
  const auto forecast = summary["forecast_bytes"].get<int64_t>(), used = summary["largest_pss_bytes"].get<int64_t>();
  if (used == 0) GTEST_SKIP() << "this kernel has no smaps_rollup";
  EXPECT_GE(frozen, int64_t{80} << 20);
  EXPECT_GE(forecast, kProcessConstantBytes) << "or the constant hides everything";
  EXPECT_LE(used, forecast + forecast / 20 + kProcessConstantBytes) << "forecast " << forecast;
  EXPECT_GE(used, forecast - forecast / 20) << "forecast " << forecast;
  RecordProperty("forecast_bytes", std::to_string(forecast));
  RecordProperty("largest_pss_bytes", std::to_string(used));
}

TEST_F(Training, ARankThatFailsTakesTheOthersDown) {
  // One photograph is damaged: the rank that decodes it fails before the vote, where the others wait for it.
  write_file(photos() / "images" / first_image(), "no photograph");
  const auto begin = std::chrono::steady_clock::now();
  const Outcome given = train("--set train.max_steps=100000", "run", on_ranks(3));
  EXPECT_TRUE(ends(given, 3, {first_image(), "/3: "}));  // "permafrost: rank r/3: ..."
  // Starting three ranks included; the group's own tests hold the ten seconds of a failure itself.
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 60.0);
}

}  // namespace
}  // namespace permafrost
