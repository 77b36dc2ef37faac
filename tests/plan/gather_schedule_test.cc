#include "parallel/plan/gather_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "core/base/check.h"

namespace permafrost {
namespace {

using Uses = std::vector<std::vector<int>>;

constexpr SlotChoice kBoth[] = {SlotChoice::kLeastRecent, SlotChoice::kFarthest};

void expect_chain(SlotChoice choice) {
  // Units 0 1 2 3, then back; what is in a slot at the turn is not gathered again.
  const auto gathers = schedule_gathers({{0}, {1}, {}, {2}, {3}, {3}, {2}, {1}, {0}}, choice);
  std::vector<int> units, starts, slots;
  for (const Gather& g : gathers) {
    units.push_back(g.unit);
    starts.push_back(g.start_step);
    slots.push_back(g.slot);
  }
  EXPECT_EQ(units, (std::vector<int>{0, 1, 2, 3, 1, 0}));
  EXPECT_EQ(slots, (std::vector<int>{0, 1, 0, 1, 1, 0}));
  // 2 begins once 0 is done, while 1 computes; 3 once 1 is done; 1 again while 2 computes.
  EXPECT_EQ(starts, (std::vector<int>{0, 0, 1, 2, 6, 7}));
  EXPECT_EQ(gathers[2].first_use, 3);
  EXPECT_EQ(gathers[2].last_use, 6);
}

TEST(GatherSchedule, AChainGoesForwardAndBackAndKeepsTheTwoUnitsAtTheTurn) {
  for (const SlotChoice choice : kBoth) expect_chain(choice);
}

TEST(GatherSchedule, ABorrowedUnitStaysWhileItIsNeededSoon) {
  // Unit 9 (a tied table) is read between and beside the others.
  for (const SlotChoice choice : kBoth) {
    std::map<int, int> times;
    for (const Gather& g : schedule_gathers({{9}, {0}, {9, 0}, {1}, {9}, {1, 9}}, choice)) ++times[g.unit];
    EXPECT_EQ(times, (std::map<int, int>{{0, 1}, {1, 1}, {9, 1}}));
  }
}

TEST(GatherSchedule, ATiedTableIsHeldOrGatheredTwice) {
  // The table is read first and last. To hold it saves a gather and leaves one slot for all others: nothing comes
  // ahead.
  const Uses uses = {{9}, {0}, {1}, {2}, {9}};
  const auto often = schedule_gathers(uses, SlotChoice::kLeastRecent),
             rarely = schedule_gathers(uses, SlotChoice::kFarthest);
  EXPECT_EQ(often.size(), 5u);
  EXPECT_EQ(rarely.size(), 4u);
  for (size_t i = 2; i < often.size(); ++i) EXPECT_EQ(often[i].start_step, often[i].first_use - 1) << "one step ahead";
  for (size_t i = 2; i < rarely.size(); ++i) EXPECT_EQ(rarely[i].start_step, rarely[i].first_use) << "when needed";
}

TEST(GatherSchedule, RefusesThreeUnitsInOneStep) {
  try {
    schedule_gathers({{1}, {1, 2, 3}}, SlotChoice::kLeastRecent);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_NE(std::string(error.what()).find("2 sharded units; got 3 in step 1"), std::string::npos);
  }
}

TEST(GatherSchedule, NothingToReadNothingToGather) {
  for (const SlotChoice choice : kBoth) {
    EXPECT_TRUE(schedule_gathers({}, choice).empty());
    EXPECT_TRUE(schedule_gathers({{}, {}}, choice).empty());
  }
}

/// The least number of gathers of any strategy, by trying all of them.
int least_gathers(const Uses& uses) {
  std::map<std::pair<size_t, std::set<int>>, int> known;
  const std::function<int(size_t, std::set<int>)> from = [&](size_t step, const std::set<int>& held) -> int {
    if (step == uses.size()) return 0;
    const auto key = std::make_pair(step, held);
    if (const auto found = known.find(key); found != known.end()) return found->second;
    const std::set<int> now(uses[step].begin(), uses[step].end());
    int missing = 0;
    std::set<int> all = held;
    for (int unit : now) missing += all.insert(unit).second;
    int best = 1 << 20;
    std::vector<int> others;
    std::ranges::set_difference(all, now, std::back_inserter(others));
    const size_t room = static_cast<size_t>(kGatherSlots) - now.size();
    for (size_t keep = 0; keep < (size_t{1} << others.size()); ++keep) {
      std::set<int> kept = now;
      for (size_t i = 0; i < others.size(); ++i)
        if ((keep >> i & 1) != 0) kept.insert(others[i]);
      if (kept.size() <= now.size() + room) best = std::min(best, from(step + 1, kept));
    }
    return known[key] = best + missing;
  };
  return from(0, {});
}

/// Every use has its unit in one slot, and no slot is filled while its unit is still read.
void expect_valid(const Uses& uses, const std::vector<Gather>& gathers) {
  for (size_t i = 0; i < gathers.size(); ++i) {
    EXPECT_LE(gathers[i].start_step, gathers[i].first_use);
    EXPECT_LE(gathers[i].first_use, gathers[i].last_use);
    EXPECT_GE(gathers[i].start_step, i > 0 ? gathers[i - 1].start_step : 0);
    for (size_t j = 0; j < i; ++j) {
      if (gathers[j].slot != gathers[i].slot) continue;
      EXPECT_GT(gathers[i].start_step, gathers[j].last_use) << "still read";
    }
  }
  for (int step = 0; step < static_cast<int>(uses.size()); ++step)
    for (int unit : uses[static_cast<size_t>(step)])
      EXPECT_EQ(
          std::ranges::count_if(
              gathers, [&](const Gather& g) { return g.unit == unit && g.first_use <= step && step <= g.last_use; }),
          1);
}

TEST(GatherSchedule, IsValidAndTheFarthestChoiceGathersAsRarelyAsPossible) {
  std::mt19937 random(5);
  for (int round = 0; round < 150; ++round) {
    Uses uses(12);
    for (auto& step : uses) {
      std::set<int> units;
      const int count = static_cast<int>(random() % 4);
      for (int i = 0; i < std::min(count, 2); ++i) units.insert(static_cast<int>(random() % 5));
      step.assign(units.begin(), units.end());
    }
    for (const SlotChoice choice : kBoth) expect_valid(uses, schedule_gathers(uses, choice));
    EXPECT_EQ(static_cast<int>(schedule_gathers(uses, SlotChoice::kFarthest).size()), least_gathers(uses)) << round;
  }
}

}  // namespace
}  // namespace permafrost
