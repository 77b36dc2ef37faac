// The tokenizer of captions against the published one: every line of the golden, and COCO's own captions by their hash.
#include <gtest/gtest.h>

#include <thread>

#include "core/base/sha256.h"
#include "data/files/json_file.h"
#include "data/metrics/caption_scores.h"
#include "data/metrics/lower_case.h"
#include "data/metrics/ptb_tokenizer.h"
#include "data/metrics/ptb_words.h"
#include "data/tokenizer/pcre.h"
#include "data/tokenizer/unicode.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

using Lines = std::vector<std::string>;

std::string tokens_of(const std::string& line) { return PtbTokenizer().tokenize(Lines{line})[0]; }

TEST(PtbTokenizer, GivesTheTokensOfThePublishedTool) {
  const Json golden = parse_json_file(golden_path("metrics.json"))["tokens"];
  Lines lines;
  for (const Json& pair : golden) lines.push_back(pair[0]);
  ASSERT_GT(lines.size(), 50u);
  const Lines tokens = PtbTokenizer().tokenize(lines);
  ASSERT_EQ(tokens.size(), lines.size());
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(tokens[i], golden[i][1].get<std::string>()) << lines[i];
}

TEST(PtbTokenizer, PartsAndJoinsAsTreebanksDo) {
  EXPECT_EQ(tokens_of("A dog, a cat."), "a dog a cat");
  EXPECT_EQ(tokens_of("It isn't the dog's, is it?"), "it is n't the dog 's is it");
  EXPECT_EQ(tokens_of("\"Go\" (now)!!"), "go -lrb- now -rrb- !!") << "the tools drop brackets in capitals only";
  EXPECT_EQ(tokens_of("22 3/4 inch"), "22\u00a03/4 inch");
  EXPECT_EQ(tokens_of("cannot"), "can not");
  EXPECT_EQ(tokens_of(""), "");
  EXPECT_EQ(tokens_of(" . - , "), "");
  EXPECT_EQ(tokens_of("\u00adx"), "x") << "a soft hyphen is no token";
}

TEST(PtbTokenizer, KeepsLinesApart) {
  const Lines lines{"one\ntwo\r\nthree", "", "four", "<a", "b=\"c\">"};
  EXPECT_EQ(PtbTokenizer().tokenize(lines), (Lines{"one two three", "", "four", "< a", "b = c >"}));
  EXPECT_TRUE(PtbTokenizer().tokenize({}).empty());
}

TEST(PtbTokenizer, LooksAtTheNextLineForInitialsOnly) {
  const Lines before_sentence{"gate B.", "The van", "mill St.", "The van"}, before_word{"gate B.", "the van"};
  EXPECT_EQ(PtbTokenizer().tokenize(before_sentence), (Lines{"gate b", "the van", "mill st.", "the van"}));
  EXPECT_EQ(PtbTokenizer().tokenize(before_word), (Lines{"gate b.", "the van"}));
}

TEST(PtbTokenizer, DropsWhatIsNotUtf8AndWhatIsBeyondTheBasicPlane) {
  EXPECT_EQ(tokens_of("a\xff"
                      "b \xe2\x82 c"),
            "a b c");
  EXPECT_EQ(tokens_of("a\U0001F600b"), "a b");
}

TEST(PtbTokenizer, TakesVeryLongWordsWhole) {
  std::string word = "a";
  for (int i = 0; i < 20000; ++i) word += "-b";
  EXPECT_EQ(tokens_of("x " + word + " y"), "x " + word + " y");
}

TEST(PythonWords, AreThoseOfSplit) {
  using Words = std::vector<std::string_view>;
  EXPECT_EQ(python_words(""), Words());
  EXPECT_EQ(python_words(" \t\u3000 "), Words());
  EXPECT_EQ(python_words("one"), Words{"one"});
  EXPECT_EQ(python_words("\n one\u00a0two  thr\xff"
                         "e\u2003"),
            (Words{"one", "two",
                   "thr\xff"
                   "e"}));
  EXPECT_EQ(python_words("a\u200b"
                         "b"),
            Words{"a\u200b"
                  "b"})
      << "a space without width is none";
}

TEST(Pcre, FindsGroupsOrNothingAndTellsWhatWentWrong) {
  const PcreCode code = compile_pcre("a(b)?(c)?", 0, "test");
  const PcreMatch match = make_pcre_match(2, "test");
  EXPECT_EQ(search_pcre(code, "xabc", 0, match, "test"), 3);
  EXPECT_EQ(pcre2_get_ovector_pointer(match.get())[0], 1u);
  EXPECT_EQ(pcre2_get_ovector_pointer(match.get())[1], 4u);
  EXPECT_EQ(search_pcre(code, "xab", 0, match, "test"), 2) << "the second group took no part";
  EXPECT_EQ(search_pcre(code, "abx", 1, match, "test"), 0);
  EXPECT_TRUE(throws_error([] { compile_pcre("a(b", 0, "test"); }, ErrorKind::kInternal,
                           {"test: PCRE2 must compile 'a(b'; got 'missing closing parenthesis' at offset 3"}));
  // What is undecided is no "no": here more ways to try than the expression allows, and more groups than have room.
  const PcreCode slow = compile_pcre("(*LIMIT_MATCH=10)(a+)+$", 0, "test");
  EXPECT_TRUE(throws_error([&] { search_pcre(slow, "aaaaaaaaaaaaaaaaaaaaaaab", 0, match, "test"); },
                           ErrorKind::kInternal,
                           {"test: PCRE2 must find or not find at byte 0 of 24; got 'match limit exceeded'"}));
  EXPECT_TRUE(throws_error([&] { search_pcre(code, "abc", 0, make_pcre_match(0, "test"), "test"); },
                           ErrorKind::kInternal, {"got 'more groups than there is room for'"}));
}

TEST(PtbTokenizer, IsSharedByThreads) {
  const PtbTokenizer tokenizer;
  const Lines lines{"Dr. Moreau isn't at 12 Mill St. (again)", "The 22 3/4 inch board"};
  const Lines expected = tokenizer.tokenize(lines);
  std::vector<std::thread> threads;
  std::array<Lines, 4> results;
  for (Lines& result : results) threads.emplace_back([&] { result = tokenizer.tokenize(lines); });
  for (std::thread& thread : threads) thread.join();
  for (const Lines& result : results) EXPECT_EQ(result, expected);
}

TEST(PtbWords, FollowTheCaseOfTheWord) {
  EXPECT_TRUE(is_ptb_abbreviation("st"));
  EXPECT_TRUE(is_ptb_abbreviation("ST"));
  EXPECT_TRUE(is_ptb_abbreviation("x"));
  EXPECT_FALSE(is_ptb_abbreviation("5"));
  EXPECT_FALSE(is_ptb_abbreviation("mass"));
  EXPECT_TRUE(is_ptb_abbreviation("Mass"));
  EXPECT_TRUE(is_ptb_abbreviation("mfg"));
  EXPECT_FALSE(is_ptb_abbreviation("MFG"));
  EXPECT_TRUE(is_ptb_number_abbreviation("No"));
  EXPECT_FALSE(is_ptb_number_abbreviation("st"));
  EXPECT_TRUE(is_ptb_sentence_start("The"));
  EXPECT_FALSE(is_ptb_sentence_start("Van"));
  EXPECT_EQ(ptb_split("Cannot"), 3u);
  EXPECT_EQ(ptb_split("canned"), 0u);
}

TEST(LowerCase, IsUnicodes) {
  EXPECT_EQ(lower_case("ABC xyz É Ñ Ω Я Ā İ ẞ Ǆ 5"), "abc xyz é ñ ω я ā i\u0307 ß ǆ 5");
  EXPECT_EQ(lower_case("\xff"
                       "A"),
            "\xff"
            "a");
}

TEST(PublicCaptions, HaveTheTokensAndScoresOfThePublishedTools) {
  const auto path = test_data("coco_captions/captions_val2017.json");
  PERMAFROST_NEEDS(path);
  const Json golden = parse_json_file(golden_path("metrics.json"))["val2017"];
  Lines captions;
  std::vector<int64_t> order;
  std::map<int64_t, Lines> of_image;
  const Json file = parse_json_file(*path);
  for (const Json& entry : file["annotations"]) {
    captions.push_back(entry["caption"]);
    Lines& own = of_image[entry["image_id"].get<int64_t>()];
    if (own.empty()) order.push_back(entry["image_id"].get<int64_t>());
    own.push_back(captions.back());
  }
  ASSERT_EQ(captions.size(), golden["captions"].get<size_t>());
  std::string text;
  for (const std::string& line : PtbTokenizer().tokenize(captions)) text += line + '\n';
  EXPECT_EQ(sha256(text.data(), text.size()), golden["sha256"].get<std::string>());

  std::vector<CaptionItem> items;
  for (const int64_t id : order) {
    const Lines& own = of_image[id];
    items.push_back({own[0], {own.begin() + 1, own.end()}});
  }
  ASSERT_EQ(items.size(), golden["images"].get<size_t>());
  const CaptionScore all = score_captions(items).all;
  // A sum of n positive doubles is off by at most n half units in the last place, theirs (pairwise) by less.
  const double bound = static_cast<double>(items.size()) * 2.3e-16;
  for (size_t n = 0; n < 4; ++n)
    EXPECT_NEAR(all.bleu[n] / golden["scores"]["bleu"][n].get<double>(), 1, 1e-12) << "BLEU-" << n + 1;
  EXPECT_NEAR(all.rouge_l / golden["scores"]["rouge_l"].get<double>(), 1, bound);
  EXPECT_NEAR(all.cider / golden["scores"]["cider"].get<double>(), 1, bound);
}

}  // namespace
}  // namespace permafrost::testing
