#include "launch/training/agreement.h"

#include <vector>

#include "core/base/check.h"
#include "core/base/json.h"
#include "launch/machine.h"
#include "launch/training/device_memory.h"
#include "launch/training/plan_setup.h"
#include "launch/training/run_identity.h"
#include "launch/training/weight_files.h"
#include "parallel/group/node/free_memory.h"

namespace permafrost {

namespace {

std::string shown(const Facts& facts, const std::string& name) {
  constexpr size_t kLongest = 200;
  const auto found = facts.find(name);
  if (found == facts.end()) return "nothing";
  return found->second.size() <= kLongest ? found->second : found->second.substr(0, kLongest) + "...";
}

/// Rank 0's text, on every rank.
std::string text_of_first(Group& world, std::string text) {
  int64_t bytes = std::ssize(text);
  world.broadcast(flat(std::span(&bytes, 1)), 0, StreamView::caller(), "agreement").wait();
  text.resize(static_cast<size_t>(bytes));
  world.broadcast(Tensor(text.data(), DType::kU8, Shape{bytes}), 0, StreamView::caller(), "agreement").wait();
  return text;
}

/// Name of the first fact in which the two differ, empty when they are equal.
std::string first_difference(const Facts& first, const Facts& mine) {
  Facts names = first;
  names.insert(mine.begin(), mine.end());
  for (const auto& [name, ignored] : names) {
    const auto a = first.find(name), b = mine.find(name);
    if (a == first.end() || b == mine.end() || a->second != b->second) return name;
  }
  return "";
}

}  // namespace

Facts plan_facts(const Plan& plan) {
  Facts facts;
  facts["graph"] = plan.graph_hash();
  facts["gather"] = plan.gather.str();
  for (const UnitPlan& unit : plan.units) facts["policy of " + unit.name] = to_string(unit.policy);
  for (const ParamPlan& param : plan.params) facts["storage of " + param.name] = concat(param.placement.stored);
  facts["whole schedule"] = plan.schedule_hash();
  return facts;
}

void require_agreement(Group& world, std::string_view what, const Facts& mine, ErrorKind kind) {
  if (world.size() == 1) return;
  const Facts first = parse_json(text_of_first(world, json_text(Json(mine)))).get<Facts>();
  const std::string difference = first_difference(first, mine);
  int64_t own = difference.empty() ? world.size() : world.rank(), lowest = 0;
  world
      .all_reduce(flat(std::span(&own, 1)), flat(std::span(&lowest, 1)), ReduceOp::kMin, StreamView::caller(),
                  "agreement")
      .wait();
  if (lowest == world.rank())
    fail(kind, what, ": all ranks must agree; got ", difference, " = ", shown(first, difference), " on rank 0, ",
         shown(mine, difference), " on rank ", world.rank());
  if (lowest == world.size()) return;
  // That rank speaks; its error ends this wait.
  world.barrier(StreamView::caller(), "waiting for the report of a disagreement").wait();
  fail(kind, what, ": all ranks must agree; rank ", lowest, " does not");
}

void require_same_samples(Group& world, std::string_view who, const std::string& hash) {
  require_agreement(world, who, {{"samples and their tokens (SHA-256)", hash}}, ErrorKind::kData);
}

namespace {

/// Known without reading: all ranks are on one machine, and have opened the same files.
bool read_the_same_files(const config::Config& config, Runtime& runtime) {
  const int64_t one_machine = runtime.ranks_on_machine == runtime.size() ? 1 : 0;
  const int64_t identity = identity_of_files(config);
  int64_t least[] = {one_machine, identity, -identity};
  const Tensor tensor = flat(std::span<int64_t>(least));
  runtime.world.all_reduce(tensor, tensor, ReduceOp::kMin, StreamView::caller(), "weight files").wait();
  return least[0] == 1 && least[1] == -least[2];
}

}  // namespace

void require_same_weights(const config::Config& config, Runtime& runtime, const FrozenHash& frozen) {
  Facts weights;
  for (const FrozenHash::Unit& unit : frozen.units) weights["hash of " + unit.name] = to_hex(unit.sum);
  require_agreement(runtime.world, "weights", weights, ErrorKind::kWeights);
  if (!read_the_same_files(config, runtime))
    require_agreement(runtime.world, "weight files", ends_of_tensors(config), ErrorKind::kWeights);
}

namespace {

/// What the node with least memory has, of a machine its share by ranks; the same on all ranks.
int64_t least_memory(Runtime& runtime) {
  int64_t mine = memory_limit_bytes() / runtime.ranks_on_machine * runtime.ranks_on_node(), least = 0;
  runtime.world
      .all_reduce(flat(std::span(&mine, 1)), flat(std::span(&least, 1)), ReduceOp::kMin, StreamView::caller(),
                  "memory of nodes")
      .wait();
  return least;
}

}  // namespace

Plan agreed_plan(const config::Config& config, Runtime& runtime) {
  return agreed_plan(config, runtime,
                     [&](const PlanChoices& choices) { return make_plan(plan_request(config, choices)); });
}

Plan agreed_plan(const config::Config& config, Runtime& runtime, const std::function<Plan(const PlanChoices&)>& make) {
  require_agreement(runtime.world, "config", shared_settings(config), ErrorKind::kConfig);
  PlanChoices choices;
  choices.world = runtime.place;
  choices.node_memory_bytes = least_memory(runtime);
  choices.device_memory_bytes = least_device_memory(runtime);
  Plan plan = make(choices);
  check_memory(plan, node_memory_limit(config, choices));
  check_device_memory(plan, choices.device_memory_bytes);
  require_agreement(runtime.world, "plan", plan_facts(plan), ErrorKind::kConfig);
  return plan;
}

}  // namespace permafrost
