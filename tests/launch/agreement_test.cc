// What ranks say of each other when they do not agree; ranks are threads here.
#include "launch/training/agreement.h"

#include "parallel/group/inproc_group.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::throws_error;

/// What each of `ranks` ranks is told, and what the caller of all is.
struct Told {
  std::vector<ErrorKind> kinds;
  std::vector<std::string> messages;  // empty: this rank was let through
};

/// `change` makes the facts of a rank.
Told compare(int ranks, const std::function<void(int, Facts&)>& change, ErrorKind kind = ErrorKind::kData) {
  Told told{std::vector<ErrorKind>(static_cast<size_t>(ranks)), std::vector<std::string>(static_cast<size_t>(ranks))};
  try {
    run_inproc(ranks, [&](Group& world) {
      Facts facts{{"a.first", "1"}, {"b.second", "2"}, {"c.third", "3"}};
      change(world.rank(), facts);
      try {
        require_agreement(world, "things", facts, kind);
      } catch (const Error& error) {
        told.kinds[static_cast<size_t>(world.rank())] = error.kind();
        told.messages[static_cast<size_t>(world.rank())] = error.what();
        throw;
      }
    });
  } catch (const Error&) {
    // Every rank's own words are compared below.
  }
  return told;
}

void expect_all_end_with(const Told& told, int differing, ErrorKind kind, const std::string& message) {
  for (size_t rank = 0; rank < told.messages.size(); ++rank) {
    EXPECT_EQ(told.kinds[rank], kind) << "rank " << rank << ": " << told.messages[rank];
    EXPECT_NE(told.messages[rank].find(message), std::string::npos) << "rank " << rank << ": " << told.messages[rank];
  }
  EXPECT_EQ(told.messages[static_cast<size_t>(differing)], message) << "in its own words, without a prefix";
}

TEST(Agreement, EqualFactsPass) {
  for (const int ranks : {1, 2, 3, 4})
    for (const std::string& message : compare(ranks, [](int, Facts&) {}).messages) EXPECT_EQ(message, "") << ranks;
}

TEST(Agreement, NoFactsPass) {
  for (const std::string& message : compare(3, [](int, Facts& facts) { facts.clear(); }).messages)
    EXPECT_EQ(message, "");
}

TEST(Agreement, ARankAloneAgreesWithItself) {
  const auto alone = make_solo_group();
  EXPECT_NO_THROW(require_agreement(*alone, "things", {{"a", "1"}}, ErrorKind::kData));
}

TEST(Agreement, NamesTheFirstDifferenceWithBothValuesAndTheRank) {
  const Told told = compare(3, [](int rank, Facts& facts) {
    if (rank != 2) return;
    facts["c.third"] = "30";
    facts["b.second"] = "20";
  });
  expect_all_end_with(told, 2, ErrorKind::kData,
                      "things: all ranks must agree; got b.second = 2 on rank 0, 20 on rank 2");
}

TEST(Agreement, TheLowestRankThatDiffersSpeaks) {
  const Told told = compare(4, [](int rank, Facts& facts) {
    if (rank >= 2) facts["a.first"] = std::to_string(10 * rank);
  });
  expect_all_end_with(told, 2, ErrorKind::kData,
                      "things: all ranks must agree; got a.first = 1 on rank 0, 20 on rank 2");
}

TEST(Agreement, WhenRankZeroIsTheOddOneRankOneSpeaks) {
  const Told told = compare(3, [](int rank, Facts& facts) {
    if (rank == 0) facts["a.first"] = "0";
  });
  expect_all_end_with(told, 1, ErrorKind::kData,
                      "things: all ranks must agree; got a.first = 0 on rank 0, 1 on rank 1");
}

TEST(Agreement, AFactMayBeMissing) {
  const Told without = compare(3, [](int rank, Facts& facts) {
    if (rank == 1) facts.erase("b.second");
  });
  expect_all_end_with(without, 1, ErrorKind::kData,
                      "things: all ranks must agree; got b.second = 2 on rank 0, nothing on rank 1");
  const Told beside = compare(3, [](int rank, Facts& facts) {
    if (rank == 2) facts["d.fourth"] = "4";
  });
  expect_all_end_with(beside, 2, ErrorKind::kData,
                      "things: all ranks must agree; got d.fourth = nothing on rank 0, 4 on rank 2");
}

TEST(Agreement, LongValuesAreCutAndStillCompared) {
  const Told told = compare(2, [](int rank, Facts& facts) {
    facts["a.first"] = std::string(200, 'x') + (rank == 0 ? "y" : "z");  // differs beyond what is shown
    facts["b.second"] = rank == 0 ? "never shown" : "either";
  });
  const std::string cut = std::string(200, 'x') + "...";
  expect_all_end_with(told, 1, ErrorKind::kData,
                      "things: all ranks must agree; got a.first = " + cut + " on rank 0, " + cut + " on rank 1");
  const Told whole =
      compare(2, [](int rank, Facts& facts) { facts["a.first"] = std::string(200, rank == 0 ? 'x' : 'y'); });
  expect_all_end_with(whole, 1, ErrorKind::kData,
                      "things: all ranks must agree; got a.first = " + std::string(200, 'x') + " on rank 0, " +
                          std::string(200, 'y') + " on rank 1");
}

TEST(Agreement, TheKindIsTheGivenOne) {
  for (const ErrorKind kind : {ErrorKind::kConfig, ErrorKind::kWeights, ErrorKind::kData}) {
    const auto differ = [](int rank, Facts& facts) { facts["a.first"] = std::to_string(rank); };
    expect_all_end_with(compare(2, differ, kind), 1, kind,
                        "things: all ranks must agree; got a.first = 0 on rank 0, 1 on rank 1");
  }
}

TEST(Agreement, TheCallerOfAllRanksIsToldByTheOneThatDiffers) {
  EXPECT_TRUE(throws_error(
      [] {
        run_inproc(4, [](Group& world) {
          require_agreement(world, "weights", {{"hash", world.rank() == 3 ? "b" : "a"}}, ErrorKind::kWeights);
        });
      },
      ErrorKind::kWeights, {"weights: all ranks must agree; got hash = a on rank 0, b on rank 3"}));
}

TEST(Agreement, ValuesMayHoldAnyText) {
  const Told same = compare(2, [](int, Facts& facts) { facts["path \"ä\"\n"] = "line\n\"quoted\" ü \\"; });
  for (const std::string& message : same.messages) EXPECT_EQ(message, "");
}

}  // namespace
}  // namespace permafrost
