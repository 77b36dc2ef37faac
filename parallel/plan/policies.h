#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/shard/world.h"

namespace permafrost {

/// How the frozen parameters of a unit reach the ranks.
enum class Policy : uint8_t {
  kResident,  ///< one copy per node (per device); nothing is gathered
  kSharded,   ///< each rank holds a part; a unit is brought together where it is used
};
std::string_view to_string(Policy policy);

/// "3.10 GiB".
std::string gib_text(int64_t bytes);

/// What was asked for; kAuto leaves it to the plan.
enum class PolicyChoice : uint8_t { kAuto, kResident, kSharded };

/// "Units of this name have this policy." Patterns as in FreezeRule, over unit names; the first that matches decides.
struct PolicyRule {
  std::string pattern;
  PolicyChoice policy = PolicyChoice::kAuto;
};

/// What the planner knows of a unit when it decides.
struct UnitNeed {
  std::string name;
  int64_t frozen_bytes = 0;
  int uses = 0;  ///< gathers per micro-batch if it were sharded
};

/// What the GPU of a rank has, and what it needs beside frozen weights.
struct DeviceNeed {
  int64_t available_bytes = 0;  ///< 0: not known, everything is taken to fit
  int64_t other_bytes = 0;      ///< everything but frozen weights and slots
  bool with_slots = true;       ///< sharded units are gathered into slots
  int parts_of = 0;             ///< as in frozen_bytes_of_device
};

/// What a node has, and what it needs beside frozen weights.
struct NodeMemory {
  int64_t available_bytes = 0;            ///< 0: not known, everything is taken to fit
  int64_t other_bytes = 0;                ///< of all ranks of the fullest node, everything but frozen weights and slots
  bool with_slots = true;                 ///< sharded units are gathered into slots in this memory
  std::optional<DeviceNeed> device = {};  ///< of each rank; none on CPU
};

struct PolicyDecision {
  Policy policy = Policy::kResident;
  std::string reason;  ///< in words
};

/// Decides for every unit. Rules first, then `otherwise` for units that no rule matches. kAuto: what fits is not
/// sharded; of what does not fit, units that are gathered least often come first, large ones before small ones, until
/// the rest fits, leaving out units so large that the slots for them cost more than they save. Within one node sharding
/// saves nothing of its memory (its ranks share one copy), so kAuto does it there only for devices: each has its own
/// copy of what is resident, and two slots for the rest. Errors: kConfig naming rules that match no unit.
std::vector<PolicyDecision> decide_policies(const std::vector<UnitNeed>& units, const std::vector<PolicyRule>& rules,
                                            PolicyChoice otherwise, const World& world, const NodeMemory& memory);

/// Bytes that frozen weights take on the fullest node, slots included when units are gathered into them.
int64_t frozen_bytes_of_node(const std::vector<int64_t>& unit_bytes, const std::vector<bool>& sharded,
                             const World& world, bool with_slots);

/// What the ranks do to have a sharded unit where it is used.
enum class GatherKind : uint8_t {
  kInPlace,     ///< all ranks are on one node and see all parts side by side: kernels read them there
  kCopy,        ///< all ranks are on one node: copied from its memory into the slot, without waiting for anybody
  kCollective,  ///< between nodes: all ranks exchange their parts
};
enum class GatherChoice : uint8_t { kAuto, kInPlace, kCopy, kInline, kPrefetch };

struct GatherMethod {
  GatherKind kind = GatherKind::kInPlace;
  bool prefetch = false;  ///< by a communication thread, one unit ahead; else by the computing thread at the first use
  std::string reason;
  bool by_device = false;  ///< by GPUs beside their kernels, no thread of the host
  bool uses_slots() const { return kind != GatherKind::kInPlace; }
  std::string str() const;  ///< "collective, one unit ahead"
};

/// Errors: kConfig when parts are to be read in place on several nodes.
GatherMethod decide_gather(GatherChoice choice, const World& world);

}  // namespace permafrost
