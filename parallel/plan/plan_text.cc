// The plan as text, JSON and hash.
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "core/base/json.h"
#include "core/base/narrow.h"
#include "core/base/sha256.h"
#include "parallel/plan/plan.h"
#include "parallel/plan/plan_json.h"

namespace permafrost {

namespace {

/// Feeds fields into a hash with their lengths, so that neighbours cannot run into each other.
class FieldHash {
 public:
  void add(int64_t value) { hash_.update(&value, sizeof value); }
  void add(std::string_view text) {
    add(static_cast<int64_t>(text.size()));
    hash_.update(text.data(), text.size());
  }
  void add(const TensorSpec& spec) {
    add(static_cast<int64_t>(spec.dtype));
    add(static_cast<int64_t>(spec.shape.rank()));
    for (int64_t dim : spec.shape.dims()) add(dim);
  }
  void add(const TensorRef& ref) {
    add(static_cast<int64_t>(ref.region));
    add(ref.offset);
    add(ref.spec);
  }
  std::string finish() { return hash_.finish(); }

 private:
  Sha256 hash_;
};

/// What is computed and from what, without sizes of batch and text.
void add_operations(FieldHash& hash, const Graph& graph) {
  for (const OpInfo& op : graph.ops()) {
    hash.add(op.op->kind());
    hash.add(op.op->constants());
    hash.add(op.scope);
    for (const auto* operands : {&op.inputs, &op.params, &op.outputs}) {
      hash.add(static_cast<int64_t>(operands->size()));
      for (int operand : *operands) hash.add(int64_t{operand});
    }
    hash.add(int64_t{op.state});
  }
  hash.add(int64_t{graph.loss()});
}

/// How ranks work together: who has what of the frozen weights, and when it is gathered.
void add_sharing(FieldHash& hash, const Plan& plan) {
  for (int rank = 0; rank < plan.world.ranks; ++rank) hash.add(int64_t{plan.world.node_of(rank)});
  hash.add(static_cast<int64_t>(plan.gather.kind));
  hash.add(static_cast<int64_t>(plan.gather.prefetch));
  for (const FrozenUnit& unit : plan.frozen_units)
    for (int64_t value : {unit.begin, unit.bytes, static_cast<int64_t>(unit.sharded)}) hash.add(value);
  for (const Gather& gather : plan.programs.front().gathers)
    for (int value : {gather.unit, gather.slot}) hash.add(int64_t{value});
}

std::string human_bytes(int64_t bytes) {
  std::ostringstream out;
  const double value = static_cast<double>(bytes);
  out << std::fixed << std::setprecision(2);
  if (bytes >= int64_t{1} << 30) {
    out << value / (1 << 30) << " GiB";
  } else if (bytes >= 1 << 20) {
    out << value / (1 << 20) << " MiB";
  } else if (bytes >= 1 << 10) {
    out << value / (1 << 10) << " KiB";
  } else {
    out << std::setprecision(0) << value << " B";
  }
  return out.str();
}

std::string giga(double flops) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2) << flops / 1e9;
  return out.str();
}

std::string frontier_text(const Plan& plan) {
  size_t behind = 0;
  std::string first_reason, first_unit;
  for (const UnitPlan& unit : plan.units) {
    if (unit.behind_frontier) {
      ++behind;
    } else if (first_unit.empty()) {
      first_unit = unit.name;
      first_reason = unit.frontier_reason;
    }
  }
  std::ostringstream out;
  out << behind << " of " << plan.units.size()
      << " units are behind the frontier (forward only, cacheable per sample).";
  if (!first_unit.empty()) out << " The first in front of it is " << first_unit << ": " << first_reason << ".";
  return out.str();
}

/// Policies with their reasons, each once, and how sharded units come together.
std::string policy_text(const Plan& plan) {
  std::vector<std::pair<std::string, std::pair<int, int64_t>>> groups;  // words -> units, bytes
  bool any_sharded = false;
  for (size_t u = 0; u < plan.units.size(); ++u) {
    const int64_t bytes = plan.frozen_units[u].bytes;
    if (bytes == 0) continue;
    any_sharded |= plan.frozen_units[u].sharded;
    const std::string words = concat(to_string(plan.units[u].policy), " (", plan.units[u].policy_reason, ")");
    auto found = std::ranges::find(groups, words, [](const auto& group) { return group.first; });
    if (found == groups.end()) found = groups.insert(groups.end(), {words, {0, 0}});
    ++found->second.first;
    found->second.second += bytes;
  }
  std::string text;
  for (const auto& [words, count] : groups)
    text += concat(text.empty() ? "" : "; ", count.first, " units, ", human_bytes(count.second), " ", words);
  if (any_sharded) text += concat("; sharded units are ", plan.gather.str(), " (", plan.gather.reason, ")");
  return text.empty() ? "none" : text;
}

std::string cpu_memory_text(const Plan& plan) {
  const MemoryPlan& memory = plan.memory;
  return concat("memory per rank: ", human_bytes(memory.total()), " = share of frozen ", human_bytes(memory.frozen),
                " + slots ", human_bytes(memory.slots), " + working ", human_bytes(memory.working), " + optimizer ",
                human_bytes(memory.optimizer), " + sums ", human_bytes(memory.sums), " + gradients ",
                human_bytes(memory.gradients), " + arena ", human_bytes(memory.arena), " + inputs ",
                human_bytes(memory.inputs), " + state ", human_bytes(memory.state),
                "\nmemory per node: ", human_bytes(plan.host_bytes_of_node()), ", ", human_bytes(memory.node_frozen),
                " of it frozen and shared by its ranks\n");
}

std::string gpu_memory_text(const Plan& plan) {
  const HostMemoryPlan& host = plan.host_memory;
  std::string text = concat("memory on each GPU: ", human_bytes(plan.device_memory.total()));
  const char* join = " = ";
  for (const MemoryItem& item : plan.device_memory.items()) {
    text += concat(join, item.name, ' ', human_bytes(item.bytes));
    join = " + ";
  }
  return concat(text, " (context and libraries)\nmemory on the host per rank: ", human_bytes(host.own()), " = working ",
                human_bytes(host.working), " + inputs ", human_bytes(host.inputs), " + staging ",
                human_bytes(host.staging), "; per node: ", human_bytes(plan.host_bytes_of_node()), ", ",
                human_bytes(host.node_frozen), " of it frozen and shared by its ranks\n");
}

/// Columns that a plan for a GPU has more than one for CPU.
void add_gpu_memory(const Plan& plan, OrderedJson& j) {
  for (const MemoryItem& item : plan.device_memory.items())
    j["device_memory"][concat(item.name, "_bytes")] = item.bytes;
  j["device_memory"]["total_bytes"] = plan.device_memory.total();
  j["host_memory"] = {{"working_bytes", plan.host_memory.working},
                      {"inputs_bytes", plan.host_memory.inputs},
                      {"staging_bytes", plan.host_memory.staging},
                      {"total_bytes", plan.host_memory.own()}};
}

}  // namespace

std::string Plan::hash() const {
  FieldHash hash;
  for (int64_t value : {int64_t{world.ranks}, int64_t{world.nodes}, int64_t{world.threads}, micro_batches, slots,
                        static_cast<int64_t>(reduction), static_cast<int64_t>(compute)})
    hash.add(value);
  for (const ParamPlan& param : params) {
    hash.add(param.name);
    hash.add(param.placement.stored);
    hash.add(static_cast<int64_t>(param.trainable));
    hash.add(param.trainable_offset);
    hash.add(param.placement.offset);
  }
  add_sharing(hash, *this);
  for (const Program& program : programs) {
    hash.add(program.arena_bytes);
    for (const PlanStep& step : program.steps) {
      hash.add(static_cast<int64_t>(step.kind));
      hash.add(int64_t{step.op});
      hash.add(int64_t{step.before});
      hash.add(int64_t{step.param});
      for (const auto* refs : {&step.inputs, &step.params, &step.outputs, &step.saved, &step.doutputs, &step.dinputs,
                               &step.dparams, &step.before_inputs})
        for (const TensorRef& ref : *refs) hash.add(ref);
      for (const auto* modes : {&step.dinput_modes, &step.dparam_modes})
        for (GradMode mode : *modes) hash.add(static_cast<int64_t>(mode));
      hash.add(step.workspace);
    }
  }
  for (const Graph& graph : graphs) add_operations(hash, graph);
  for (PhaseKind phase : phases) hash.add(to_string(phase));
  return hash.finish();
}

std::string Plan::graph_hash() const {
  FieldHash hash;
  hash.add(static_cast<int64_t>(compute));
  for (const ParamPlan& param : params) {
    hash.add(param.name);
    hash.add(TensorSpec{param.shape, DType::kF32});
    hash.add(static_cast<int64_t>(param.trainable));
  }
  add_operations(hash, graphs.front());
  return hash.finish();
}

std::string Plan::schedule_hash() const {
  FieldHash hash;
  hash.add(graph_hash());
  for (int64_t value : {int64_t{world.ranks}, int64_t{world.nodes}, micro_batches, slots,
                        static_cast<int64_t>(reduction), trainable_space})
    hash.add(value);
  for (const ParamPlan& param : params) {
    hash.add(param.placement.stored);
    hash.add(param.trainable_offset);
  }
  for (int64_t bucket : buckets) hash.add(bucket);
  add_sharing(hash, *this);
  for (PhaseKind phase : phases) hash.add(to_string(phase));
  return hash.finish();
}

std::string Plan::table() const {
  std::ostringstream out;
  size_t width = 4;
  for (const UnitPlan& unit : units) width = std::max(width, unit.name.size());
  const int name_width = static_cast<int>(width) + 2;
  out << std::left << std::setw(name_width) << "unit" << std::setw(14) << "class" << std::setw(10) << "policy"
      << std::right << std::setw(12) << "weights" << std::setw(12) << "saved" << std::setw(12) << "gradients"
      << std::setw(12) << "optimizer" << std::setw(8) << "gather" << std::setw(8) << "reduce" << std::setw(12)
      << "fwd GFLOP" << std::setw(12) << "bwd GFLOP" << '\n';
  for (const UnitPlan& u : units)
    out << std::left << std::setw(name_width) << u.name << std::setw(14) << to_string(u.freeze_class) << std::setw(10)
        << to_string(u.policy) << std::right << std::setw(12) << human_bytes(u.weight_bytes) << std::setw(12)
        << human_bytes(u.saved_bytes) << std::setw(12) << human_bytes(u.gradient_bytes) << std::setw(12)
        << human_bytes(u.optimizer_bytes) << std::setw(8) << u.gathers << std::setw(8) << u.reductions << std::setw(12)
        << giga(u.flops_forward) << std::setw(12) << giga(u.flops_backward) << '\n';
  out << "\nparameters: " << total_params << " total, " << trainable_params << " trainable (" << std::setprecision(3)
      << 100.0 * static_cast<double>(trainable_params) / static_cast<double>(std::max<int64_t>(1, total_params))
      << " %)\n"
      << "world: " << world.ranks << " ranks on " << world.nodes << " nodes, " << world.threads << " threads each; "
      << micro_batches << " micro-batches per step, " << slots << " slots per rank\n"
      << (world.device == DeviceKind::kCuda ? gpu_memory_text(*this) : cpu_memory_text(*this))
      << "frozen weights: " << policy_text(*this) << '\n'
      << "traffic per rank and step: " << human_bytes(traffic.total()) << " = gradients reduced "
      << human_bytes(traffic.reduced_gradients) << " + working copies gathered "
      << human_bytes(traffic.gathered_working) << " + norms " << human_bytes(traffic.gathered_norms)
      << " + frozen gathered " << human_bytes(traffic.gathered_frozen) << " + vote " << human_bytes(traffic.vote)
      << '\n'
      << "work per micro-batch: " << giga(flops_forward()) << " GFLOP forward, " << giga(flops_backward())
      << " backward\n"
      << "frontier: " << frontier_text(*this) << '\n'
      << "hash: " << hash() << '\n';
  return out.str();
}

std::string Plan::json() const { return json_text(plan_json(*this), 2); }

OrderedJson plan_json(const Plan& plan) {
  OrderedJson j;
  j["hash"] = plan.hash();
  j["world"] = {{"ranks", plan.world.ranks}, {"nodes", plan.world.nodes}, {"threads", plan.world.threads}};
  j["micro_batches"] = plan.micro_batches;
  j["slots"] = plan.slots;
  j["compute"] = to_string(plan.compute);
  j["buckets"] = plan.buckets;
  j["parameters"] = {{"total", plan.total_params}, {"trainable", plan.trainable_params}};
  j["memory"] = {{"frozen_bytes", plan.memory.frozen},       {"working_bytes", plan.memory.working},
                 {"optimizer_bytes", plan.memory.optimizer}, {"sums_bytes", plan.memory.sums},
                 {"gradients_bytes", plan.memory.gradients}, {"arena_bytes", plan.memory.arena},
                 {"inputs_bytes", plan.memory.inputs},       {"state_bytes", plan.memory.state},
                 {"slots_bytes", plan.memory.slots},         {"total_bytes", plan.memory.total()}};
  j["node_memory"] = {{"frozen_bytes", plan.memory.node_frozen}, {"total_bytes", plan.host_bytes_of_node()}};
  if (plan.world.device == DeviceKind::kCuda) add_gpu_memory(plan, j);
  j["traffic"] = {{"gathered_frozen_bytes", plan.traffic.gathered_frozen},
                  {"reduced_gradients_bytes", plan.traffic.reduced_gradients},
                  {"gathered_working_bytes", plan.traffic.gathered_working},
                  {"gathered_norms_bytes", plan.traffic.gathered_norms},
                  {"vote_bytes", plan.traffic.vote},
                  {"total_bytes", plan.traffic.total()}};
  j["moved_bytes"] = plan.traffic.moved;
  j["gather"] = {{"method", plan.gather.str()}, {"reason", plan.gather.reason}, {"slot_bytes", plan.slot_bytes}};
  const double slots_of_step = static_cast<double>(plan.slots);
  j["flops"] = {{"forward_per_micro_batch", plan.flops_forward()},
                {"backward_per_micro_batch", plan.flops_backward()},
                {"per_rank_and_step", slots_of_step * (plan.flops_forward() + plan.flops_backward())}};
  j["frontier"] = frontier_text(plan);
  for (PhaseKind phase : plan.phases) j["phases"].push_back(to_string(phase));
  for (size_t b = 0; b < plan.programs.size(); ++b)
    j["programs"].push_back({{"tokens", plan.buckets[b]},
                             {"steps", plan.programs[b].steps.size()},
                             {"buffers", plan.programs[b].buffers.size()},
                             {"gathers", plan.programs[b].gathers.size()},
                             {"arena_bytes", plan.programs[b].arena_bytes},
                             {"peak_live_bytes", plan.programs[b].peak_live_bytes}});
  for (const UnitPlan& u : plan.units)
    j["units"].push_back({{"name", u.name},
                          {"class", to_string(u.freeze_class)},
                          {"policy", to_string(u.policy)},
                          {"policy_reason", u.policy_reason},
                          {"behind_frontier", u.behind_frontier},
                          {"reason", u.frontier_reason},
                          {"parameters", u.params},
                          {"trainable", u.trainable_params},
                          {"weight_bytes", u.weight_bytes},
                          {"saved_bytes", u.saved_bytes},
                          {"gradient_bytes", u.gradient_bytes},
                          {"optimizer_bytes", u.optimizer_bytes},
                          {"gathers", u.gathers},
                          {"reductions", u.reductions},
                          {"flops_forward", u.flops_forward},
                          {"flops_backward", u.flops_backward}});
  return j;
}

}  // namespace permafrost
