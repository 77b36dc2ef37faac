#include "parallel/plan/policies.h"

#include <gtest/gtest.h>

#include "core/base/check.h"
#include "parallel/plan/gpu_memory.h"

namespace permafrost {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

std::vector<UnitNeed> needs() {
  return {{"vision.blocks.0", 40 * kMiB, 1},
          {"vision.blocks.1", 60 * kMiB, 1},
          {"text.blocks.0", 100 * kMiB, 2},
          {"text.blocks.1", 90 * kMiB, 2},
          {"connector", 0, 0}};
}

std::vector<Policy> policies(const std::vector<PolicyDecision>& decisions) {
  std::vector<Policy> found;
  for (const PolicyDecision& decision : decisions) found.push_back(decision.policy);
  return found;
}

constexpr Policy R = Policy::kResident, S = Policy::kSharded;

TEST(Policies, WhatFitsIsNotSharded) {
  const auto decisions = decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 2, 1}, {400 * kMiB, 100 * kMiB});
  EXPECT_EQ(policies(decisions), (std::vector<Policy>{R, R, R, R, R}));
  EXPECT_EQ(decisions[0].reason, "fits: a node needs 0.38 GiB of 0.39 GiB");
  EXPECT_EQ(decisions[4].reason, "nothing frozen");
}

TEST(Policies, WhatDoesNotFitIsShardedUntilTheRestFitsRarelyGatheredUnitsFirst) {
  const World world{8, 8, 1};
  const std::vector<UnitNeed> equal = {{"a", 40 * kMiB, 2}, {"b", 40 * kMiB, 1}, {"c", 40 * kMiB, 1},
                                       {"d", 40 * kMiB, 2}, {"e", 40 * kMiB, 2}, {"f", 40 * kMiB, 2}};
  const auto some = decide_policies(equal, {}, PolicyChoice::kAuto, world, {160 * kMiB, 0});
  // Slots 80; each sharded unit saves 35: five are needed to get from 240 to 160, those gathered once before others.
  EXPECT_EQ(policies(some), (std::vector<Policy>{S, S, S, S, S, R}));
  EXPECT_EQ(some[1].reason,
            "with all weights resident a node would need 0.23 GiB of 0.16 GiB; gathered 1 time per micro-batch");
  EXPECT_EQ(some[5].reason, "fits once others are sharded");
}

TEST(Policies, AUnitWhoseSlotsCostMoreThanItSavesStaysResident) {
  // Eight ranks per node have slots of their own. To shard the table would take 16 GiB of slots and save half of one.
  std::vector<UnitNeed> units = {{"table", 1024 * kMiB, 1}};
  for (int i = 0; i < 64; ++i) units.push_back({"layers." + std::to_string(i), 100 * kMiB, 2});
  const auto decisions = decide_policies(units, {}, PolicyChoice::kAuto, {16, 2, 1}, {6000 * kMiB, 0});
  EXPECT_EQ(decisions[0].policy, R);
  EXPECT_EQ(decisions[0].reason, "fits once others are sharded");
  std::vector<int64_t> bytes;
  std::vector<bool> sharded;
  for (size_t u = 0; u < units.size(); ++u) {
    bytes.push_back(units[u].frozen_bytes);
    sharded.push_back(decisions[u].policy == S);
  }
  EXPECT_LE(frozen_bytes_of_node(bytes, sharded, {16, 2, 1}, true), 6000 * kMiB);
}

TEST(Policies, WhatFitsInNoWayIsNotMadeLarger) {
  // 390 MiB; every choice with slots needs more.
  const auto decisions = decide_policies(needs(), {}, PolicyChoice::kAuto, {2, 2, 1}, {389 * kMiB, 100 * kMiB});
  EXPECT_EQ(policies(decisions), (std::vector<Policy>{R, R, R, R, R}));
  EXPECT_EQ(decisions[0].reason, "its slots would need more than it saves");
}

TEST(Policies, WithinOneNodeAutoNeverShards) {
  const auto decisions = decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 1, 1}, {200 * kMiB, 100 * kMiB});
  EXPECT_EQ(policies(decisions), (std::vector<Policy>{R, R, R, R, R}));
  EXPECT_EQ(decisions[2].reason, "the ranks of one node share one copy: sharding would save nothing");
}

TEST(Policies, WithinOneNodeADeviceThatIsTooSmallGetsUnitsThroughSlots) {
  // 290 MiB resident. Slots of the smallest unit: 80 MiB for 40 less. With units up to 60 MiB the slots need 120 and
  // save 100; up to 90 they need 180 and save 190; with all 200 and save 290.
  NodeMemory memory{400 * kMiB, 100 * kMiB, false, DeviceNeed{300 * kMiB, 10 * kMiB}};
  EXPECT_EQ(policies(decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 1, 1}, memory)),
            (std::vector<Policy>{R, R, R, R, R}));
  memory.device->available_bytes = 290 * kMiB;
  const auto some = decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 1, 1}, memory);
  EXPECT_EQ(policies(some), (std::vector<Policy>{S, S, R, S, R}));
  EXPECT_EQ(some[0].reason,
            "with all weights resident a GPU would need 0.29 GiB of 0.28 GiB; copied 1 time per micro-batch");
  EXPECT_EQ(some[2].reason, "fits once others are sharded");
  memory.device->available_bytes = 210 * kMiB;
  EXPECT_EQ(policies(decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 1, 1}, memory)),
            (std::vector<Policy>{S, S, S, S, R}));
  memory.device->available_bytes = 0;
  const auto unknown = decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 1, 1}, memory);
  EXPECT_EQ(policies(unknown), (std::vector<Policy>{R, R, R, R, R}));
  EXPECT_EQ(unknown[0].reason, "fits: a GPU needs 0.29 GiB of as much memory as is there");
}

TEST(Policies, ANodeThatIsTooSmallIsToldSoAlsoWithDevices) {
  const NodeMemory memory{200 * kMiB, 100 * kMiB, false, DeviceNeed{300 * kMiB, 10 * kMiB}};
  const auto decisions = decide_policies(needs(), {}, PolicyChoice::kAuto, {4, 1, 1}, memory);
  EXPECT_EQ(policies(decisions), (std::vector<Policy>{R, R, R, R, R}));
  EXPECT_EQ(decisions[0].reason, "the ranks of one node share one copy: sharding would save nothing");
}

TEST(Policies, BytesOfADeviceCountWholeUnitsSlotsAndParts) {
  const std::vector<int64_t> bytes = {8 * kMiB, 4 * kMiB, 100};
  EXPECT_EQ(frozen_bytes_of_device(bytes, {false, false, false}, true, 0), 12 * kMiB + 4096);
  EXPECT_EQ(frozen_bytes_of_device(bytes, {false, true, false}, true, 0), 8 * kMiB + 4096 + 2 * 4 * kMiB);
  EXPECT_EQ(frozen_bytes_of_device(bytes, {true, true, false}, true, 4), 2 * kMiB + kMiB + 4096 + 2 * 8 * kMiB);
  EXPECT_EQ(frozen_bytes_of_device(bytes, {true, true, true}, false, 4), 12 * kMiB + 4096) << "read where they are";
}

TEST(Policies, RulesDecideBeforeEverythingElse) {
  const auto decisions =
      decide_policies(needs(), {{"text.blocks.1", PolicyChoice::kResident}, {"text.*", PolicyChoice::kSharded}},
                      PolicyChoice::kResident, {2, 1, 1}, {});
  EXPECT_EQ(policies(decisions), (std::vector<Policy>{R, R, S, R, R}));
  EXPECT_EQ(decisions[2].reason, "asked for by parallel.policies[1]");
  EXPECT_EQ(decisions[3].reason, "asked for by parallel.policies[0]");
  EXPECT_EQ(decisions[0].reason, "asked for by parallel.frozen_policy");
}

TEST(Policies, ARuleThatMatchesNothingIsAnError) {
  try {
    decide_policies(needs(), {{"audio.*", PolicyChoice::kSharded}}, PolicyChoice::kAuto, {2, 1, 1}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    const std::string message = error.what();
    EXPECT_NE(message.find("every pattern must match a unit; got 'audio.*', which match none of the 5 units"),
              std::string::npos)
        << message;
    EXPECT_NE(message.find("vision.blocks.0"), std::string::npos) << message;
  }
}

TEST(Policies, BytesOfANodeCountPartsAndSlots) {
  const std::vector<int64_t> bytes = {8 * kMiB, 4 * kMiB};
  EXPECT_EQ(frozen_bytes_of_node(bytes, {false, false}, {4, 2, 1}, true), 12 * kMiB);
  EXPECT_EQ(frozen_bytes_of_node(bytes, {true, false}, {4, 2, 1}, false), 4 * kMiB + 4 * kMiB);
  EXPECT_EQ(frozen_bytes_of_node(bytes, {true, false}, {4, 2, 1}, true), 4 * kMiB + 4 * kMiB + 2 * 2 * 8 * kMiB);
  EXPECT_EQ(frozen_bytes_of_node(bytes, {true, true}, {4, 1, 1}, false), 12 * kMiB);
}

TEST(Gather, OnOneNodePartsAreReadInPlaceUnlessAskedOtherwise) {
  const World one{2, 1, 1, 2};
  EXPECT_EQ(decide_gather(GatherChoice::kAuto, one).str(), "read in place");
  World on_gpus = one;
  on_gpus.device = DeviceKind::kCuda;
  for (const GatherChoice choice : {GatherChoice::kAuto, GatherChoice::kCopy, GatherChoice::kInline})
    EXPECT_EQ(decide_gather(choice, on_gpus).str(), "copied from the host by the device, one unit ahead");
  EXPECT_EQ(decide_gather(GatherChoice::kPrefetch, on_gpus).str(), "gathered between devices, one unit ahead");
  EXPECT_EQ(decide_gather(GatherChoice::kInline, one).str(), "copied at the first use");
  EXPECT_EQ(decide_gather(GatherChoice::kPrefetch, one).str(), "copied by a communication thread, one unit ahead");
}

TEST(Gather, CopiesUseAThreadWhenACoreIsSpare) {
  EXPECT_EQ(decide_gather(GatherChoice::kCopy, {2, 1, 1, 2}).str(), "copied at the first use");
  EXPECT_EQ(decide_gather(GatherChoice::kCopy, {2, 1, 1, 2}).reason, "no core is spare for a communication thread");
  EXPECT_EQ(decide_gather(GatherChoice::kCopy, {2, 1, 1, 3}).str(), "copied by a communication thread, one unit ahead");
  EXPECT_EQ(decide_gather(GatherChoice::kCopy, {2, 1, 1, 3}).reason, "1 core of the node spare");
}

TEST(Gather, BetweenNodesAThreadGathers) {
  const World two{4, 2, 1, 2};
  for (const GatherChoice choice : {GatherChoice::kAuto, GatherChoice::kCopy, GatherChoice::kPrefetch})
    EXPECT_EQ(decide_gather(choice, two).str(), "gathered by a communication thread, one unit ahead");
  EXPECT_EQ(decide_gather(GatherChoice::kInline, two).str(), "gathered at the first use");
  try {
    decide_gather(GatherChoice::kInPlace, two);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConfig);
    EXPECT_NE(std::string(error.what()).find("needs all ranks on one node; got 2 nodes"), std::string::npos);
  }
}

}  // namespace
}  // namespace permafrost
