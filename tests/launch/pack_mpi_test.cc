// Packing and training on packed data on several ranks.
#include "tests/launch/vqa_fixture.h"

namespace permafrost {
namespace {

namespace fs = std::filesystem;

TEST_F(VqaTraining, ShardsAreTheSameBytesOnAnyNumberOfRanks) {
  ASSERT_TRUE(ends(pack("one", "--shard-mb 0.002"), 0, {}));
  for (int ranks : {2, 3}) {
    const std::string name = "on" + std::to_string(ranks);
    ASSERT_TRUE(ends(pack(name, "--shard-mb 0.002", false, on_ranks(ranks)), 0, {" 0 kept"}));
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(dir("one"))) {
      EXPECT_TRUE(read_file(entry.path()) == read_file(dir(name) / entry.path().filename())) << entry.path();
      ++files;
    }
    EXPECT_GE(files, 3u);
  }
  EXPECT_TRUE(ends(pack("on2", "--shard-mb 1", false, on_ranks(2)), 2, {"data pack: a folder that is new or"}));
}

TEST_F(VqaTraining, QuestionsAndMixesGiveTheSameBitsOnTwoRanks) {
  write_questions();
  for (const auto& [name, more] : std::vector<std::pair<std::string, std::string>>{
           {"vqa", questions() + " --set loss.tokens=ANSWER"},
           {"mix",
            " --set 'data.mix+={weight: 3 data {train_first: 6}}' --set 'data.mix+={data {train_fraction: 0.5}}'"}}) {
    ASSERT_TRUE(ends(train(more, name), 0, {}));
    ASSERT_TRUE(ends(train(more, name + "2", on_ranks(2)), 0, {}));
    EXPECT_EQ(losses(name), losses(name + "2"));
    EXPECT_EQ(adapter_hash(name), adapter_hash(name + "2"));
  }
}

}  // namespace
}  // namespace permafrost
