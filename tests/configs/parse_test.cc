#include "configs/parse.h"

#include "configs/config.pb.h"
#include "tests/configs/small_config.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {
using testing::throws_error;

std::vector<std::string> problems_of(const std::string& text) {
  Config config;
  Problems problems;
  parse_text(text, "x.textproto", config, problems);
  return problems.lines();
}

TEST(Parse, ReportsAllUnknownFieldsAndValuesWithLines) {
  const auto lines = problems_of(
      "train { max_step: 3 }\n"
      "parallel {\n"
      "  reduction: FASTEST\n"
      "  thread: 2\n"
      "}\n"
      "model { epalm { vision { size: VIT_H14 } } }\n"
      "trian { }\n");
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "x.textproto:3: expected one of ORDER_FREE, PLAIN for reduction; got FASTEST");
  EXPECT_EQ(lines[1], "x.textproto:6: expected one of FREE, VIT_B16, VIT_L16 for size; got VIT_H14");
  EXPECT_EQ(lines[2].find("x.textproto:1: no field 'max_step' (did you mean 'max_steps'?)"), 0u) << lines[2];
  EXPECT_EQ(lines[3].find("x.textproto:4: no field 'thread' (did you mean 'threads'?); fields here: threads, "), 0u)
      << lines[3];
  EXPECT_EQ(lines[4].find("x.textproto:7: no field 'trian' (did you mean 'train'?)"), 0u) << lines[4];
}

TEST(Parse, NamesTheValuesOfTheFieldThatWasMeant) {
  // `kind` exists in several messages with different values.
  const auto lines = problems_of("loss { kind: SUM }");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], "x.textproto:1: expected one of SAMPLE_SUM, TOKEN_MEAN for kind; got SUM");
  const auto nested = problems_of(
      "# loss {\nmodel { epalm { prompt { kind: MLP } adapter: {\n kind: PARALEL # }\n } } }\n"
      "optimizer { groups: [{ rank: ANY }, { rank: ALL }] }");
  ASSERT_EQ(nested.size(), 2u);
  EXPECT_EQ(nested[0], "x.textproto:3: expected one of NONE, NORMAL, PARALLEL, SCALED_PARALLEL for kind; got PARALEL");
  EXPECT_EQ(nested[1], "x.textproto:5: expected one of ANY, VECTORS, MATRICES for rank; got ALL");
}

TEST(Parse, SyntaxErrorsHaveALine) {
  const auto lines = problems_of("train {\n  max_steps: many\n}\n");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], "x.textproto:2: Expected integer, got: many");
  EXPECT_FALSE(problems_of("train {").empty());
  EXPECT_FALSE(problems_of("train { max_steps: 99999999999999999999 }").empty());
  EXPECT_FALSE(problems_of(std::string("\0\1\2", 3)).empty());
}

TEST(Parse, GoodTextHasNoProblems) {
  EXPECT_TRUE(problems_of("# nothing\n").empty());
  EXPECT_TRUE(problems_of(kSmall).empty());
}

TEST(Parse, UnknownFieldsAndBadValuesAreReportedTogether) {
  EXPECT_TRUE(throws_error([] { resolve_config("train { max_step: 3 }", "x.textproto"); }, ErrorKind::kConfig,
                           {"config: x.textproto has ", "x.textproto:1: no field 'max_step'",
                            "train.max_steps: expected a value, 1 and up; got none",
                            "model: expected one of: epalm, vision_classifier, language_model, projector; got none"}));
}

}  // namespace
}  // namespace permafrost::config
