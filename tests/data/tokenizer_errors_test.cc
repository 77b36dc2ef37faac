#include "core/base/json.h"
#include "data/files/json_file.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

class TokenizerErrors : public ::testing::Test {
 protected:
  void SetUp() override { write_small_vocabulary(folder_); }
  ::testing::AssertionResult refused(const std::vector<std::string>& parts,
                                     TokenizerRules rules = TokenizerRules::kOpt) {
    return throws_error([&] { Tokenizer::load({folder_.path(), rules, {}}); }, ErrorKind::kData, parts);
  }
  void change_vocabulary(const std::function<void(Json&)>& change) {
    auto vocabulary = parse_json_file(folder_.path() / "vocab.json");
    change(vocabulary);
    folder_.write("vocab.json", json_text(vocabulary));
  }
  DataFolder folder_;
};

TEST_F(TokenizerErrors, Paths) {
  EXPECT_TRUE(throws_error(
      [&] {
        Tokenizer::load({folder_.path() / "absent", TokenizerRules::kOpt, {}});
      },
      ErrorKind::kData, {"tokenizer", "no such path", "absent"}));
  std::filesystem::remove(folder_.path() / "merges.txt");
  EXPECT_TRUE(refused({"merges.txt is expected beside vocab.json", "merges.txt"}));
  std::filesystem::remove(folder_.path() / "vocab.json");
  EXPECT_TRUE(refused({"vocab.json with merges.txt, or tokenizer.json", "got neither"}));
}

TEST_F(TokenizerErrors, MalformedJsonNamesTheLine) {
  folder_.write("vocab.json", "{\n \"a\": 1,\n \"b\": oops}");
  EXPECT_TRUE(refused({"json", "line 3, column 7", "vocab.json"}));
  folder_.write("vocab.json", "");
  EXPECT_TRUE(refused({"json", "line 1, column 1", "vocab.json"}));
  folder_.write("vocab.json", "[1]");
  EXPECT_TRUE(refused({"must be an object {token: id}; got array", "vocab.json"}));
}

TEST_F(TokenizerErrors, Vocabulary) {
  change_vocabulary([](auto& v) { v.erase("x"); });
  EXPECT_TRUE(refused({"all 256 bytes", "byte 120", "vocab.json"}));
  change_vocabulary([](auto& v) { v["x"] = 3; });
  EXPECT_TRUE(refused({"ids unique", "id 3", "vocab.json"}));
  change_vocabulary([](auto& v) { v["x"] = -1; });
  EXPECT_TRUE(refused({"integers in 0..", "-1 for 'x'"}));
  change_vocabulary([](auto& v) { v["x"] = 1'000'000'000; });
  EXPECT_TRUE(refused({"integers in 0..", "1000000000 for 'x'"}));
  change_vocabulary([](auto& v) { v["x"] = "12"; });
  EXPECT_TRUE(refused({"integers in 0..", "\"12\" for 'x'"}));
}

TEST_F(TokenizerErrors, RulesNeedTheirTokens) {
  EXPECT_TRUE(refused({"rules gpt2 need the token '<|endoftext|>'", "264"}, TokenizerRules::kGpt2));
  EXPECT_TRUE(refused({"rules roberta need the token '<mask>'"}, TokenizerRules::kRoberta));
}

TEST_F(TokenizerErrors, Merges) {
  folder_.write("merges.txt", "h e\nhe\n");
  EXPECT_TRUE(refused({"'he' without exactly one space", "merges.txt"}));
  folder_.write("merges.txt", "h e\nq he\n");
  EXPECT_TRUE(refused({"'q he' but no token 'qhe'", "merges.txt"}));
}

TEST_F(TokenizerErrors, TokenizerJson) {
  const auto refused_file = [&](std::string_view text, const std::vector<std::string>& parts) {
    const auto file = folder_.write("tokenizer.json", text);
    return throws_error([&] { Tokenizer::load({file, TokenizerRules::kOpt, {}}); }, ErrorKind::kData, parts);
  };
  EXPECT_TRUE(refused_file("{}", {"an object with 'model'", "tokenizer.json"}));
  EXPECT_TRUE(refused_file(R"({"model": {"type": "Unigram"}})", {"model.type must be \"BPE\""}));
  EXPECT_TRUE(refused_file(R"({"model": {"type": "BPE"}})", {"model.vocab and model.merges"}));
  EXPECT_TRUE(refused_file(R"({"model": {"vocab": {}, "merges": []}})", {"ByteLevel"}));
  EXPECT_TRUE(refused_file(R"({"model": {"vocab": {}, "merges": [3]}, "pre_tokenizer": {"type": "ByteLevel"}})",
                           {"each merge must be"}));
}

TEST_F(TokenizerErrors, VocabularyThatDoesNotFitTheModel) {
  const Tokenizer tokenizer = Tokenizer::load({folder_.path(), TokenizerRules::kOpt, {}});
  EXPECT_NO_THROW(check_vocabulary(tokenizer, 264, "OPT-125M"));
  EXPECT_TRUE(throws_error([&] { check_vocabulary(tokenizer, 263, "OPT-125M"); }, ErrorKind::kData,
                           {"263 embedding rows of OPT-125M", "264 tokens"}));
}

TEST_F(TokenizerErrors, IdsWithoutToken) {
  change_vocabulary([](auto& v) { v["last"] = 300; });
  const Tokenizer tokenizer = Tokenizer::load({folder_.path(), TokenizerRules::kOpt, {}});
  EXPECT_EQ(tokenizer.size(), 301);
  EXPECT_EQ(tokenizer.decode_bytes(std::vector<int32_t>{300}), "last");
  for (int32_t id : {-1, 299, 301})
    EXPECT_TRUE(throws_error([&] { tokenizer.decode(std::vector<int32_t>{id}); }, ErrorKind::kData,
                             {"0..300", concat("got ", id)}));
}

}  // namespace
}  // namespace permafrost::testing
