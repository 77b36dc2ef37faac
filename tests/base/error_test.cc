#include "core/base/error.h"

#include <filesystem>
#include <limits>
#include <set>
#include <sstream>

#include "core/base/check.h"
#include "core/base/utf8.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

struct Kind {
  ErrorKind kind;
  const char* word;
  int code;
};

constexpr Kind kKinds[] = {
    {ErrorKind::kInvalidArgument, "invalid argument", 70},
    {ErrorKind::kShapeMismatch, "shape mismatch", 70},
    {ErrorKind::kConfig, "config", 2},
    {ErrorKind::kWeights, "weights", 3},
    {ErrorKind::kData, "data", 3},
    {ErrorKind::kStorage, "storage", 4},
    {ErrorKind::kNonFinite, "non-finite", 5},
    {ErrorKind::kPeer, "peer", 6},
    {ErrorKind::kTimeout, "timeout", 6},
    {ErrorKind::kNotBuilt, "not built", 7},
    {ErrorKind::kStopped, "stopped", 8},
    {ErrorKind::kInternal, "internal", 70},
};

TEST(Error, EveryKindHasItsWordAndExitCode) {
  // kInternal stands last in the enumeration: a kind added without a row here is noticed.
  ASSERT_EQ(std::size(kKinds), static_cast<size_t>(ErrorKind::kInternal) + 1);
  std::set<ErrorKind> seen;
  for (const Kind& row : kKinds) {
    EXPECT_EQ(to_string(row.kind), row.word);
    EXPECT_EQ(exit_code(row.kind), row.code) << row.word;
    EXPECT_TRUE(seen.insert(row.kind).second) << row.word;
    EXPECT_TRUE(throws_error([&] { fail(row.kind, "op: expected ", 3, "; got ", 4.5); }, row.kind,
                             {"op: expected 3; got 4.5"}));
  }
}

TEST(Error, IsAStandardException) {
  try {
    fail(ErrorKind::kData, "reader: expected ", "images");
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "reader: expected images");
  }
}

TEST(Error, EscapesWhatATerminalWouldActOn) {
  const std::string hostile = "red \x1b[31m\a\x7f, C1 \xc2\x9b, not UTF-8 \xff, cut \xe2\x82, zero ";
  EXPECT_TRUE(throws_error([&] { fail(ErrorKind::kWeights, hostile, '\0', "; line\n\tü…"); }, ErrorKind::kWeights,
                           {"red \\x1b[31m\\x07\\x7f, C1 \\xc2\\x9b, not UTF-8 \\xff, cut \\xe2\\x82, zero \\x00; "
                            "line\n\tü…"}));
  EXPECT_EQ(printable("a\nb\tc"), "a\\x0ab\\x09c");
  EXPECT_EQ(printable("a\nb\tc", Lines::kSeveral), "a\nb\tc");
}

TEST(Check, ThrowsTheJoinedMessage) {
  const int got = 7;
  EXPECT_TRUE(throws_error([&] { PERMAFROST_CHECK(got < 5, "op: n must be below ", 5, "; got ", got); },
                           ErrorKind::kInvalidArgument, {"op: n must be below 5; got 7"}));
}

TEST(Check, EvaluatesConditionOnceAndMessageOnlyOnFailure) {
  int conditions = 0, messages = 0;
  const auto condition = [&](bool value) { return ++conditions, value; };
  const auto message = [&] { return ++messages, "why"; };
  PERMAFROST_CHECK(condition(true), message());
  EXPECT_EQ(conditions, 1);
  EXPECT_EQ(messages, 0);
  EXPECT_THROW(PERMAFROST_CHECK(condition(false), message()), Error);
  EXPECT_EQ(conditions, 2);
  EXPECT_EQ(messages, 1);
}

TEST(Check, IsOneStatement) {
  const bool yes = true;
  if (yes)
    PERMAFROST_CHECK(yes, "never");
  else
    FAIL();
}

TEST(Concat, JoinsWhateverStreams) {
  EXPECT_EQ(concat(), "");
  EXPECT_EQ(concat("rank ", 3, '/', int64_t{8}, " ", std::string("x")), "rank 3/8 x");
}

enum class Colour { kBlue };
std::ostream& operator<<(std::ostream& out, Colour) { return out << "blue"; }

/// One part as a stream prints it, and between two others.
template <typename T>
void expect_streamed(const T& part) {
  std::ostringstream stream;
  stream << part;
  EXPECT_EQ(concat(part), stream.str());
  EXPECT_EQ(concat("<", part, '>'), "<" + stream.str() + ">");
}

TEST(Concat, PrintsWhatStreamsPrint) {
  expect_streamed(std::numeric_limits<int64_t>::min());
  expect_streamed(std::numeric_limits<uint64_t>::max());
  expect_streamed(static_cast<short>(-7));
  expect_streamed(true);
  for (const double value : {0.0, -0.0, 1.0, 0.1, 1e6, 999999.5, 1234567.0, 1e-5, 1e300, 5e-324, -2.5,
                             std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    expect_streamed(value);
    expect_streamed(static_cast<float>(value));
    expect_streamed(static_cast<long double>(value));
  }
  expect_streamed('x');
  expect_streamed(static_cast<signed char>('y'));
  expect_streamed(static_cast<unsigned char>('z'));
  expect_streamed("text");
  expect_streamed(std::string_view("with\0zero", 9));
  expect_streamed(std::string());
  expect_streamed(std::filesystem::path("a folder/file"));
  expect_streamed(Colour::kBlue);
  int here = 0;
  expect_streamed(static_cast<const void*>(&here));
}

}  // namespace
}  // namespace permafrost::testing
