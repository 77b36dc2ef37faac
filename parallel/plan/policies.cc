#include "parallel/plan/policies.h"

#include <algorithm>
#include <set>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/graph/freezing.h"
#include "parallel/plan/gather_schedule.h"
#include "parallel/plan/gpu_memory.h"
#include "parallel/shard/frozen_layout.h"

namespace permafrost {

std::string gib_text(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / static_cast<double>(int64_t{1} << 30));
  return text;
}

std::string_view to_string(Policy policy) {
  switch (policy) {
    case Policy::kResident:
      return "resident";
    case Policy::kSharded:
      return "sharded";
  }
  return "?";
}

namespace {

/// The rule that decides for each unit, -1 for none.
std::vector<int> match_rules(const std::vector<UnitNeed>& units, const std::vector<PolicyRule>& rules) {
  std::vector<int> match(units.size(), -1);
  std::string unused;
  for (size_t r = 0; r < rules.size(); ++r) {
    bool used = false;
    for (size_t u = 0; u < units.size(); ++u) {
      if (!name_matches(rules[r].pattern, units[u].name)) continue;
      used = true;
      if (match[u] < 0) match[u] = narrow<int>(r);
    }
    if (!used) unused += (unused.empty() ? "'" : ", '") + rules[r].pattern + "'";
  }
  if (unused.empty()) return match;
  std::string names;
  for (size_t u = 0; u < units.size(); u += std::max<size_t>(1, units.size() / 5))
    names += (names.empty() ? "" : ", ") + units[u].name;
  fail(ErrorKind::kConfig, "parallel.policies: every pattern must match a unit; got ", unused,
       ", which match none of the ", units.size(), " units (names look like: ", names, ")");
}

/// What frozen weights and everything else need in each place, given which units are sharded.
struct Room {
  const std::vector<int64_t>& bytes;
  const World& world;
  const NodeMemory& memory;

  int64_t node(const std::vector<bool>& sharded) const {
    return memory.other_bytes + frozen_bytes_of_node(bytes, sharded, world, memory.with_slots);
  }
  int64_t device(const std::vector<bool>& sharded) const {
    if (!memory.device) return 0;
    return memory.device->other_bytes +
           frozen_bytes_of_device(bytes, sharded, memory.device->with_slots, memory.device->parts_of);
  }
  static int64_t lacking(int64_t needed, int64_t available) {
    return available == 0 ? 0 : std::max<int64_t>(0, needed - available);
  }
  int64_t lacking_on_device(const std::vector<bool>& sharded) const {
    return memory.device ? lacking(device(sharded), memory.device->available_bytes) : 0;
  }
  /// In all places together; 0 when everything fits.
  int64_t lacking(const std::vector<bool>& sharded) const {
    return lacking(node(sharded), memory.available_bytes) + lacking_on_device(sharded);
  }
};

/// What choose_sharded works on.
struct Choice {
  const std::vector<UnitNeed>& units;
  std::vector<size_t> open;           ///< units left to the plan
  const std::vector<bool>& by_rules;  ///< those that are sharded in any case
  const Room& room;
};

/// Slots are as large as the largest sharded unit, so a large unit may cost more than it saves: for every limit on the
/// size of units, shards one after the other until the rest fits. Of the choices that fit the one that gathers the
/// fewest bytes; if none fits, the one that lacks least.
std::vector<bool> choose_sharded(Choice c) {
  const std::vector<int64_t>& bytes = c.room.bytes;
  std::ranges::stable_sort(c.open, [&](size_t a, size_t b) {
    return c.units[a].uses != c.units[b].uses ? c.units[a].uses < c.units[b].uses : bytes[a] > bytes[b];
  });
  struct Best {
    std::vector<bool> sharded;
    int64_t lacking = 0, gathered = 0;
  } best{c.by_rules, c.room.lacking(c.by_rules), 0};
  std::set<int64_t> limits;
  for (size_t u : c.open) limits.insert(bytes[u]);
  for (int64_t limit : limits) {
    std::vector<bool> sharded = c.by_rules;
    int64_t gathered = 0;
    for (size_t u : c.open) {
      if (bytes[u] > limit) continue;
      sharded[u] = true;
      gathered += c.units[u].uses * bytes[u];
      const int64_t now = c.room.lacking(sharded);
      if (now < best.lacking || (now == 0 && gathered < best.gathered)) best = {sharded, now, gathered};
      if (now == 0) break;
    }
  }
  return best.sharded;
}

/// What was found of the units that are left to the plan.
struct Outcome {
  const std::vector<bool>& before;  ///< sharded by rules
  const std::vector<bool>& chosen;
  const Room& room;
};

std::string reason_for(const Outcome& o, size_t unit, int uses) {
  const NodeMemory& memory = o.room.memory;
  const bool fits = o.room.lacking(o.before) == 0, for_device = o.room.lacking_on_device(o.before) > 0;
  const bool says_device = memory.device && (fits || for_device);
  const int64_t needed = says_device ? o.room.device(o.before) : o.room.node(o.before);
  const int64_t available = says_device ? memory.device->available_bytes : memory.available_bytes;
  const std::string who = says_device ? "a GPU" : "a node";
  const std::string of = available == 0 ? "as much memory as is there" : gib_text(available);
  if (o.chosen[unit])
    return concat("with all weights resident ", who, " would need ", gib_text(needed), " of ", of,
                  o.room.world.nodes == 1 ? "; copied " : "; gathered ", uses, uses == 1 ? " time" : " times",
                  " per micro-batch");
  if (fits) return concat("fits: ", who, " needs ", gib_text(needed), " of ", of);
  if (o.room.world.nodes == 1 && !for_device)
    return "the ranks of one node share one copy: sharding would save nothing";
  return o.chosen != o.before ? "fits once others are sharded" : "its slots would need more than it saves";
}

}  // namespace

int64_t frozen_bytes_of_node(const std::vector<int64_t>& unit_bytes, const std::vector<bool>& sharded,
                             const World& world, bool with_slots) {
  std::vector<FrozenUnit> units;
  int64_t at = 0, largest = 0;
  for (size_t u = 0; u < unit_bytes.size(); ++u) {
    units.push_back({at, unit_bytes[u], sharded[u]});
    at += round_up(unit_bytes[u], kFrozenBlock);
    if (sharded[u]) largest = std::max(largest, round_up(unit_bytes[u], kFrozenBlock));
  }
  std::vector<int> ranks =
      world.ranks_of_node(0);  // other nodes with as many ranks hold a block of a unit less at most
  for (int node = 1; node < world.nodes && std::ssize(ranks) < world.most_ranks_of_a_node(); ++node)
    if (std::vector<int> here = world.ranks_of_node(node); here.size() > ranks.size()) ranks = std::move(here);
  const int64_t slots = with_slots ? kGatherSlots * largest * std::ssize(ranks) : 0;
  return FrozenLayout(units, world, ranks.front()).node_bytes() + slots;
}

std::vector<PolicyDecision> decide_policies(const std::vector<UnitNeed>& units, const std::vector<PolicyRule>& rules,
                                            PolicyChoice otherwise, const World& world, const NodeMemory& memory) {
  const std::vector<int> match = match_rules(units, rules);
  std::vector<PolicyDecision> decisions(units.size());
  std::vector<int64_t> bytes;
  std::vector<bool> sharded(units.size(), false);
  std::vector<size_t> open;  // left to us
  for (size_t u = 0; u < units.size(); ++u) {
    bytes.push_back(units[u].frozen_bytes);
    const PolicyChoice choice = match[u] < 0 ? otherwise : rules[static_cast<size_t>(match[u])].policy;
    if (units[u].frozen_bytes == 0) {
      decisions[u] = {Policy::kResident, "nothing frozen"};
    } else if (choice == PolicyChoice::kAuto) {
      open.push_back(u);
    } else {
      decisions[u] = {choice == PolicyChoice::kSharded ? Policy::kSharded : Policy::kResident,
                      match[u] < 0 ? "asked for by parallel.frozen_policy"
                                   : concat("asked for by parallel.policies[", match[u], "]")};
      sharded[u] = choice == PolicyChoice::kSharded;
    }
  }
  const Room room{bytes, world, memory};
  const bool helps = world.nodes > 1 || room.lacking_on_device(sharded) > 0;
  const std::vector<bool> chosen =
      room.lacking(sharded) == 0 || !helps ? sharded : choose_sharded({units, open, sharded, room});
  for (size_t u : open)
    decisions[u] = {chosen[u] ? Policy::kSharded : Policy::kResident,
                    reason_for({sharded, chosen, room}, u, units[u].uses)};
  return decisions;
}

std::string GatherMethod::str() const {
  switch (kind) {
    case GatherKind::kInPlace:
      return "read in place";
    case GatherKind::kCopy:
      if (by_device) return "copied from the host by the device, one unit ahead";
      return prefetch ? "copied by a communication thread, one unit ahead" : "copied at the first use";
    case GatherKind::kCollective:
      if (by_device) return "gathered between devices, one unit ahead";
      return prefetch ? "gathered by a communication thread, one unit ahead" : "gathered at the first use";
  }
  return "?";
}

GatherMethod decide_gather(GatherChoice choice, const World& world) {
  if (world.nodes > 1) {
    if (choice == GatherChoice::kInPlace)
      fail(ErrorKind::kConfig, "parallel.gather: IN_PLACE needs all ranks on one node; got ", world.nodes, " nodes");
    if (world.device == DeviceKind::kCuda)
      return {GatherKind::kCollective, true, concat("ranks are on ", world.nodes, " nodes"), true};
    if (choice == GatherChoice::kInline) return {GatherKind::kCollective, false, "asked for by parallel.gather"};
    return {GatherKind::kCollective, true,
            concat("ranks are on ", world.nodes, " nodes; the thread sleeps while it waits")};
  }
  if (world.device == DeviceKind::kCuda && choice == GatherChoice::kPrefetch)
    return {GatherKind::kCollective, true, "asked for by parallel.gather", true};
  if (world.device == DeviceKind::kCuda && choice != GatherChoice::kInPlace)
    return {GatherKind::kCopy, true, "from the host's memory", true};
  switch (choice) {
    case GatherChoice::kAuto:
      return {GatherKind::kInPlace, false, "all parts are in the memory of this node"};
    case GatherChoice::kInPlace:
      return {GatherKind::kInPlace, false, "asked for by parallel.gather"};
    case GatherChoice::kInline:
      return {GatherKind::kCopy, false, "asked for by parallel.gather"};
    case GatherChoice::kPrefetch:
      return {GatherKind::kCopy, true, "asked for by parallel.gather"};
    case GatherChoice::kCopy:
      break;
  }
  const int spare = world.spare_cores();
  if (spare > 0) return {GatherKind::kCopy, true, concat(spare, spare == 1 ? " core" : " cores", " of the node spare")};
  return {GatherKind::kCopy, false, "no core is spare for a communication thread"};
}

}  // namespace permafrost
