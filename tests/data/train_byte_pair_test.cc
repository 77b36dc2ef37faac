#include "data/tokenizer/train_byte_pair.h"

#include "data/files/read_file.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

using Merges = std::vector<BytePairTrainer::Merge>;

TEST(BytePairTrainer, MergesTheMostFrequentPairAndAmongEqualsTheFirst) {
  BytePairTrainer trainer;
  trainer.add("ab ab ac");  // pieces "ab", " ab", " ac": " a" and "ab" twice, "ac" once; then everything once
  EXPECT_EQ(trainer.train(100), (Merges{{" ", "a"}, {" a", "b"}, {" a", "c"}, {"a", "b"}}));
  trainer.add("ab");
  EXPECT_EQ(trainer.train(100).front(), (BytePairTrainer::Merge{"a", "b"}));
}

TEST(BytePairTrainer, MergesFromTheLeftWithoutOverlap) {
  BytePairTrainer trainer;
  trainer.add("aaaaa");  // aa aa a, then (aa, a) and (aa, aa) once each
  EXPECT_EQ(trainer.train(100), (Merges{{"a", "a"}, {"aa", "a"}, {"aa", "aaa"}}));
}

TEST(BytePairTrainer, StopsAtTheLimitAndWithoutTexts) {
  BytePairTrainer trainer;
  EXPECT_TRUE(trainer.train(5).empty());
  trainer.add("some words");
  EXPECT_EQ(trainer.train(2).size(), 2u);
  EXPECT_TRUE(trainer.train(0).empty());
}

TEST(BytePairFiles, LoadAsTheTokenizerThatWasTrained) {
  BytePairTrainer trainer;
  trainer.add("schöne Wörter, \xff and words");  // also what is not ASCII, and what is not UTF-8
  const Merges merges = trainer.train(100);
  const DataFolder folder;
  write_byte_pair_files(folder.path() / "deep/down", opt_special_tokens(), merges);
  const Tokenizer tokenizer =
      Tokenizer::load({folder.path() / "deep/down", TokenizerRules::kOpt, {}, "vocab.json", "merges.txt"});
  EXPECT_EQ(tokenizer.size(), 4 + 256 + static_cast<int64_t>(merges.size()));
  for (const char* word : {"sch\xC3\xB6ne", " W\xC3\xB6rter", " and", " words"})
    EXPECT_GE(tokenizer.id_of(word), 260) << word;
  const std::string text = "sch\xC3\xB6ne \xff words";
  EXPECT_EQ(tokenizer.decode_bytes(tokenizer.encode(text)), "</s>" + text);
  EXPECT_TRUE(read_text_file(folder.path() / "deep/down/merges.txt").starts_with("#version: 0.2\n"));
}

TEST(BytePairFiles, AFolderThatCannotBeMadeIsNamed) {
  EXPECT_TRUE(throws_error([] { write_byte_pair_files("/proc/none", {}, {}); }, ErrorKind::kStorage,
                           {"tokenizer: cannot make the folder /proc/none"}));
}

}  // namespace
}  // namespace permafrost::testing
