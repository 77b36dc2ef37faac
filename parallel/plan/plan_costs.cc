#include "parallel/plan/plan_costs.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "parallel/reduce/vote.h"

namespace permafrost {

namespace {

/// Of one element of the sums.
int64_t sum_bytes(Reduction reduction) { return reduction == Reduction::kOrderFree ? 8 : 4; }

/// Units whose frozen parameters a step reads, each once.
std::vector<int> units_read(const Plan& plan, const PlanStep& step, const Graph& graph) {
  std::vector<int> units;
  for (size_t i = 0; i < step.params.size(); ++i) {
    if (step.params[i].region != Region::kFrozen) continue;
    const int p = graph.ops()[static_cast<size_t>(step.op)].params[i];
    const int unit = plan.params[static_cast<size_t>(p)].unit;
    if (!std::ranges::count(units, unit)) units.push_back(unit);
  }
  return units;
}

/// Per unit, how often a micro-batch would gather it: runs of steps that read it, not interrupted by a step that reads
/// other units.
std::vector<int> count_uses(const Plan& plan) {
  std::vector<int> uses(plan.frozen_units.size(), 0);
  const std::span<const Program> programs = plan.gathering_programs();
  for (size_t i = 0; i < programs.size(); ++i) {
    const Graph& graph = plan.graphs[plan.graphs.size() - programs.size() + i];
    std::vector<int> before;
    for (const PlanStep& step : programs[i].steps) {
      const std::vector<int> now = units_read(plan, step, graph);
      if (now.empty()) continue;
      for (int unit : now)
        if (!std::ranges::count(before, unit)) ++uses[static_cast<size_t>(unit)];
      before = now;
    }
  }
  return uses;
}

std::vector<std::string> decide(Plan& plan, const PlanRequest& request) {
  const std::vector<int> uses = count_uses(plan);
  std::vector<UnitNeed> needs;
  const auto& units = plan.graphs.back().units();
  for (size_t u = 0; u < units.size(); ++u) needs.push_back({units[u].name, plan.frozen_units[u].bytes, uses[u]});
  const bool on_gpu = plan.world.device == DeviceKind::kCuda;
  const bool between_devices = plan.gather.kind == GatherKind::kCollective;
  const int64_t own = on_gpu ? plan.host_memory.own() : plan.memory.own();
  NodeMemory memory{request.node_memory_bytes, plan.world.most_ranks_of_a_node() * (own + request.process_bytes),
                    on_gpu ? between_devices && !plan.device_collectives : plan.gather.uses_slots()};
  if (on_gpu)
    memory.device = {.available_bytes = request.device_memory_bytes,
                     .other_bytes = plan.device_memory.total(),
                     .with_slots = plan.gather.uses_slots(),
                     .parts_of = between_devices ? plan.world.ranks : 0};
  const auto decisions = decide_policies(needs, request.policies, request.frozen_policy, plan.world, memory);
  std::vector<std::string> reasons;
  for (size_t u = 0; u < units.size(); ++u) {
    plan.frozen_units[u].sharded = decisions[u].policy == Policy::kSharded;
    reasons.push_back(decisions[u].reason);
  }
  return reasons;
}

/// Steps read gathered parameters from the slot their unit is in.
void read_from_slots(const Plan& plan, const Graph& graph, Program& program) {
  for (const Gather& gather : program.gathers) {
    const FrozenUnit& unit = plan.frozen_units[static_cast<size_t>(gather.unit)];
    for (int s = gather.first_use; s <= gather.last_use; ++s) {
      PlanStep& step = program.steps[static_cast<size_t>(s)];
      for (size_t i = 0; i < step.params.size(); ++i) {
        TensorRef& ref = step.params[i];
        if (ref.region != Region::kFrozen) continue;
        const int p = graph.ops()[static_cast<size_t>(step.op)].params[i];
        if (plan.params[static_cast<size_t>(p)].unit != gather.unit) continue;
        ref.region = Region::kSlots;
        ref.offset += plan.slot_begin(gather.slot) - unit.begin;
      }
    }
  }
}

void gather_into_slots(Plan& plan) {
  for (size_t b = 0; b < plan.programs.size(); ++b) {
    Program& program = plan.programs[b];
    std::vector<std::vector<int>> uses;
    for (const PlanStep& step : program.steps) {
      uses.push_back(units_read(plan, step, plan.graphs[b]));
      std::erase_if(uses.back(), [&](int unit) { return !plan.frozen_units[static_cast<size_t>(unit)].sharded; });
    }
    program.gathers = schedule_gathers(uses, plan.gather.prefetch ? SlotChoice::kLeastRecent : SlotChoice::kFarthest);
    // Ranks may work on different buckets at the same time, but gather together.
    const auto same = [](const Gather& a, const Gather& c) { return a.unit == c.unit && a.slot == c.slot; };
    PERMAFROST_CHECK(plan.lockstep || std::ranges::equal(program.gathers, plan.programs[0].gathers, same),
                     "make_plan: all buckets must gather the same units in the same order; those of ", plan.buckets[b],
                     " and ", plan.buckets[0], " tokens differ");
  }
  for (const Program& program : plan.programs) {
    for (const Gather& gather : program.gathers) {
      int64_t& bytes = plan.slot_bytes[static_cast<size_t>(gather.slot)];
      bytes = std::max(bytes, round_up(plan.frozen_units[static_cast<size_t>(gather.unit)].bytes, kFrozenBlock));
    }
  }
  for (size_t b = 0; b < plan.programs.size(); ++b) read_from_slots(plan, plan.graphs[b], plan.programs[b]);
}

/// What comes to `rank` in a reduce-scatter of the trainable space: its part from everybody else; with several nodes of
/// several ranks first, within the node, the parts of all ranks that have its place on theirs (HierarchicalGroup).
int64_t incoming_sums(const Plan& plan, int rank) {
  const World& world = plan.world;
  const auto elements = [&](int r) { return plan.slice(r).second - plan.slice(r).first; };
  const int per_node = world.ranks / world.nodes;
  bool in_two_steps = world.nodes > 1 && per_node > 1 && plan.reduction == Reduction::kOrderFree;
  for (int r = 0; r < world.ranks; ++r) in_two_steps = in_two_steps && world.node_of(r) == r / per_node;
  if (!in_two_steps) return (world.ranks - 1) * elements(rank) * sum_bytes(plan.reduction);
  int64_t of_lane = 0;
  for (int r = rank % per_node; r < world.ranks; r += per_node) of_lane += elements(r);
  return ((per_node - 1) * of_lane + (world.nodes - 1) * elements(rank)) * sum_bytes(plan.reduction);
}

}  // namespace

void count_memory(Plan& plan, const PlanRequest& request) {
  int64_t largest_slice = 0;
  for (int rank = 0; rank < plan.world.ranks; ++rank)
    largest_slice = std::max(largest_slice, plan.slice(rank).second - plan.slice(rank).first);
  if (!request.options.forward_only) {
    plan.memory.optimizer = 12 * largest_slice;
    plan.memory.gradients = 4 * largest_slice;
    plan.memory.sums = sum_bytes(plan.reduction) * plan.trainable_space;
  }
  for (const Program& program : plan.programs) {
    plan.memory.arena = std::max(plan.memory.arena, program.arena_bytes);
    plan.memory.inputs = std::max(plan.memory.inputs, program.input_bytes * (1 + request.prefetched_inputs));
    plan.memory.state = std::max(plan.memory.state, program.state_bytes);
  }
  count_gpu_memory(plan, request.options.forward_only);
}

std::vector<std::string> apply_policies(Plan& plan, const PlanRequest& request) {
  plan.gather = decide_gather(request.gather, plan.world);
  std::vector<std::string> reasons = decide(plan, request);
  if (plan.gather.uses_slots()) gather_into_slots(plan);
  plan.memory.slots = plan.slot_begin(kGatherSlots);
  for (int node = 0; node < plan.world.nodes; ++node) {
    const std::vector<int> ranks = plan.world.ranks_of_node(node);
    plan.memory.node_frozen = std::max(plan.memory.node_frozen, plan.frozen_layout(ranks.front()).node_bytes());
  }
  plan.memory.frozen = div_up(plan.memory.node_frozen, plan.world.most_ranks_of_a_node());
  count_gpu_weights(plan);
  return reasons;
}

TrafficPlan Plan::traffic_of(int rank) const {
  const int64_t trainables = std::ranges::count_if(params, [](const ParamPlan& p) { return p.trainable; });
  const auto [begin, end] = slice(rank);
  TrafficPlan traffic;
  const FrozenLayout layout = frozen_layout(rank);
  // Together all ranks gather for every slot, also those without a micro-batch; copies are made for one's own alone.
  const int64_t times = gather.kind == GatherKind::kCollective ? slots : micro_batches_of(rank);
  for (const Program& program : gathering_programs())
    for (const Gather& each : program.gathers) {
      const auto unit = static_cast<size_t>(each.unit);
      traffic.gathered_frozen += times * (frozen_units[unit].bytes - layout.parts(unit).count(rank));
    }
  traffic.reduced_gradients = (trainable_space - (end - begin)) * sum_bytes(reduction);
  traffic.gathered_working = memory.working - (working_byte(end) - working_byte(begin));
  traffic.gathered_norms = 8 * (div_up(trainable_space, kTrainableBlock) - div_up(end - begin, kTrainableBlock));
  traffic.vote = (world.ranks - 1) * Voter::message_bytes(world.ranks, trainables, micro_batches);
  traffic.moved = traffic.total() - traffic.reduced_gradients + incoming_sums(*this, rank);
  return traffic;
}

void count_traffic(Plan& plan) {
  for (int rank = 0; rank < plan.world.ranks; ++rank) {
    const TrafficPlan traffic = plan.traffic_of(rank);
    if (traffic.total() > plan.traffic.total()) plan.traffic = traffic;
  }
}

}  // namespace permafrost
