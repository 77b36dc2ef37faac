// What is made of generated ids, as the released code does.
#include "launch/evaluation/published_text.h"

#include "launch/sample_photos.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

class PublishedText : public ::testing::Test {
 protected:
  Tokenizer tokenizer(bool with_answers) const {
    write_byte_tokenizer(folder_ / "tokenizer");
    TokenizerConfig config;
    config.path = folder_ / "tokenizer";
    if (with_answers) config.added_tokens.emplace_back(kAnswerToken);
    return Tokenizer::load(config);
  }
  static std::vector<int32_t> ids(const Tokenizer& tokenizer, const std::string& text) {
    std::vector<int32_t> result;
    tokenizer.encode_plain(text, result);
    return result;
  }
  ScratchFolder folder_;
};

TEST_F(PublishedText, ACaptionStandsBetweenTheFirstAndTheSecondEndToken) {
  const Tokenizer t = tokenizer(false);
  EXPECT_EQ(published_text(t, TextTask::kCaptions, t.prefix(), ids(t, "a dog .")), "a dog.");
  EXPECT_EQ(published_text(t, TextTask::kCaptions, t.prefix(), {}), "");
  // A row of the embedding without a token says nothing.
  std::vector<int32_t> generated = ids(t, "a d");
  generated.insert(generated.begin() + 1, 262);
  EXPECT_EQ(published_text(t, TextTask::kCaptions, t.prefix(), generated), "a d");
}

TEST_F(PublishedText, AnAnswerStandsBehindItsMarkWithASpaceInFront) {
  const Tokenizer t = tokenizer(true);
  const std::vector<int32_t> prompt = question_ids(t, "what is it?");
  EXPECT_EQ(published_text(t, TextTask::kVqa, prompt, ids(t, "dog")), " dog");
  std::vector<int32_t> padded = ids(t, "dog");
  padded.push_back(t.pad_id());
  EXPECT_EQ(published_text(t, TextTask::kVqa, prompt, padded), " dog");
  EXPECT_EQ(published_text(t, TextTask::kVqa, prompt, {}), " ");
}

}  // namespace
}  // namespace permafrost
