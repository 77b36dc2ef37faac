#include "parallel/plan/plan.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "parallel/plan/plan_costs.h"
#include "parallel/plan/step_traffic.h"

namespace permafrost {

std::string_view to_string(PhaseKind kind) {
  switch (kind) {
    case PhaseKind::kMicroBatches:
      return "micro_batches";
    case PhaseKind::kVote:
      return "vote";
    case PhaseKind::kReduceGradients:
      return "reduce_gradients";
    case PhaseKind::kGatherNorms:
      return "gather_norms";
    case PhaseKind::kOptimizer:
      return "optimizer";
    case PhaseKind::kGatherWorking:
      return "gather_working";
  }
  return "?";
}

namespace {

void check_request(const PlanRequest& request) {
  if (request.buckets.empty() || !std::ranges::is_sorted(request.buckets) || request.buckets.front() < 1)
    fail(ErrorKind::kConfig, "plan: text length buckets must be positive and ascending; got ", request.buckets.size(),
         " buckets");
  check_world(request.world);
  if (request.micro_batches < 1)
    fail(ErrorKind::kConfig, "plan: a step needs at least one micro-batch; got ", request.micro_batches);
}

DType stored_dtype(const ParamInfo& info, bool trainable, const PlanRequest& request, DType compute) {
  if (info.shape.rank() <= 1) return DType::kF32;
  if (!trainable && info.shape.rank() == 2 && request.frozen_dtype) return request.frozen_dtype(info);
  return compute;
}

/// The frozen space: unit by unit, so that a unit is one range.
void place_frozen(Plan& plan, size_t units) {
  std::vector<std::vector<ParamPlan*>> frozen_of(units);
  for (ParamPlan& param : plan.params)
    if (!param.trainable) frozen_of[static_cast<size_t>(param.unit)].push_back(&param);
  int64_t end = 0;
  for (const std::vector<ParamPlan*>& frozen : frozen_of) {
    FrozenUnit unit{round_up(end, kFrozenBlock), 0, false};
    for (ParamPlan* param : frozen) {
      param->placement.offset = unit.begin + unit.bytes;
      unit.bytes += round_up(param->placement.stored.bytes(), kArenaAlignment);
    }
    end = unit.begin + unit.bytes;
    plan.frozen_units.push_back(unit);
  }
}

/// Trainables: matrices first, then vectors, so that a range of the trainable space is one range of bytes of the
/// working copies although their dtypes differ.
void place_params(Plan& plan, const Graph& graph, const std::vector<bool>& trainable, const PlanRequest& request) {
  for (size_t p = 0; p < graph.params().size(); ++p) {
    const ParamInfo& info = graph.params()[p];
    ParamPlan param{info.name, info.shape, info.initializer, trainable[p], info.unit, -1, {}};
    param.placement.stored = {info.shape, stored_dtype(info, trainable[p], request, graph.compute())};
    param.placement.region = trainable[p] ? Region::kWorking : Region::kFrozen;
    plan.total_params += info.shape.elements();
    if (trainable[p]) plan.trainable_params += info.shape.elements();
    plan.params.push_back(std::move(param));
  }
  place_frozen(plan, graph.units().size());
  int64_t element = 0, byte = 0;
  for (const bool vectors : {false, true}) {
    for (ParamPlan& param : plan.params) {
      if (!param.trainable || (param.shape.rank() <= 1) != vectors) continue;
      const int64_t padded = round_up(param.shape.elements(), kTrainableAlignment);
      param.trainable_offset = element;
      param.placement.offset = byte;
      element += padded;
      byte += padded * size_of(param.placement.stored.dtype);
    }
  }
  plan.trainable_space = element;
  plan.memory.working = byte;
}

/// Calls visit(unit, flops forward, flops backward) for each step of a program, as the forecast of a step counts them.
template <typename Visit>
void for_each_step(const Plan& plan, size_t bucket, Visit visit) {
  for (const PlanStep& step : plan.programs[bucket].steps) {
    const StepWork work = step_work(plan, bucket, step);
    const double flops = work.frozen_flops + work.trainable_flops;
    const bool forward = step.kind == StepKind::kForward;
    visit(step.unit, forward ? flops : 0, forward ? 0 : flops);
  }
}

void describe_units(Plan& plan, std::vector<std::string> reasons) {
  const size_t largest = plan.graphs.size() - 1;
  const Graph& graph = plan.graphs[largest];
  const Program& program = plan.programs[largest];
  const NeedAnalysis& needs = plan.needs[largest];
  for (size_t u = 0; u < graph.units().size(); ++u) {
    UnitPlan unit;
    unit.name = graph.units()[u].name;
    unit.freeze_class = needs.unit_class[u];
    unit.behind_frontier = needs.behind_frontier[u];
    unit.frontier_reason = needs.frontier_reason[u];
    unit.policy = plan.frozen_units[u].sharded ? Policy::kSharded : Policy::kResident;
    unit.policy_reason = std::move(reasons[u]);
    plan.units.push_back(std::move(unit));
  }
  for (const ParamPlan& param : plan.params) {
    UnitPlan& unit = plan.units[static_cast<size_t>(param.unit)];
    unit.params += param.shape.elements();
    unit.weight_bytes += param.placement.stored.bytes();
    if (!param.trainable) continue;
    unit.trainable_params += param.shape.elements();
    unit.gradient_bytes += 4 * param.shape.elements();
    unit.optimizer_bytes += 12 * param.shape.elements();
    unit.reductions = 1;
  }
  for_each_step(plan, largest, [&](int index, double forward, double backward) {
    UnitPlan& unit = plan.units[static_cast<size_t>(index)];
    unit.flops_forward += forward;
    unit.flops_backward += backward;
  });
  for (const Program& each : plan.gathering_programs())
    for (const Gather& gather : each.gathers) plan.units[static_cast<size_t>(gather.unit)].gathers += plan.slots;
  // Kept from forward for backward: written before the turn, read after it.
  int turn = 0;
  for (size_t s = 0; s < program.steps.size(); ++s)
    if (program.steps[s].kind == StepKind::kForward) turn = static_cast<int>(s);
  for (const PlannedBuffer& buffer : program.buffers) {
    if (buffer.first_step > turn || buffer.last_step <= turn) continue;
    if (buffer.kind != BufferKind::kActivation && buffer.kind != BufferKind::kSaved) continue;
    plan.units[static_cast<size_t>(program.steps[static_cast<size_t>(buffer.first_step)].unit)].saved_bytes +=
        buffer.bytes;
  }
}

}  // namespace

size_t Plan::bucket_for(int64_t tokens) const {
  const auto found = std::ranges::lower_bound(buckets, tokens);
  PERMAFROST_CHECK(found != buckets.end(), "Plan::bucket_for: text must be at most ", buckets.back(), " tokens; got ",
                   tokens);
  return static_cast<size_t>(found - buckets.begin());
}

std::pair<int64_t, int64_t> Plan::slice(int rank) const {
  const ShardSpec shards(trainable_space, world.ranks);
  return {shards.begin(rank), shards.end(rank)};
}

int64_t Plan::working_byte(int64_t element) const {
  // Matrices come first with the compute dtype, vectors follow in f32.
  int64_t vectors_begin = trainable_space;
  for (const ParamPlan& param : params)
    if (param.trainable && param.shape.rank() <= 1) vectors_begin = std::min(vectors_begin, param.trainable_offset);
  const int64_t matrix_elements = std::min(element, vectors_begin);
  return matrix_elements * size_of(compute) + (element - matrix_elements) * 4;
}

int64_t Plan::micro_batches_of(int rank) const {
  return micro_batches > rank ? div_up(micro_batches - rank, world.ranks) : 0;
}

double Plan::program_flops(size_t bucket) const {
  double sum = 0;
  for_each_step(*this, bucket, [&](int, double forward, double backward) { sum += forward + backward; });
  return sum;
}
double Plan::flops_forward() const {
  double sum = 0;
  for (const UnitPlan& unit : units) sum += unit.flops_forward;
  return sum;
}
double Plan::flops_backward() const {
  double sum = 0;
  for (const UnitPlan& unit : units) sum += unit.flops_backward;
  return sum;
}

Plan make_plan(const PlanRequest& request) {
  check_request(request);
  Plan plan;
  plan.world = request.world;
  plan.micro_batches = request.micro_batches;
  plan.slots = div_up(request.micro_batches, request.world.ranks);
  plan.reduction = request.reduction;
  plan.buckets = request.buckets;
  plan.lockstep = request.lockstep;
  plan.device_collectives = request.device_collectives;
  for (int64_t tokens : request.buckets) plan.graphs.push_back(request.build_graph(tokens));
  const Graph& graph = plan.graphs.back();
  plan.compute = graph.compute();
  const std::vector<bool> trainable = resolve_freezing(graph, request.freezing, request.allow_all_frozen);
  place_params(plan, graph, trainable, request);
  std::vector<ParamPlacement> placements;
  for (const ParamPlan& param : plan.params) placements.push_back(param.placement);
  for (const Graph& g : plan.graphs) {
    PERMAFROST_CHECK(g.params().size() == plan.params.size(), "make_plan: every bucket's graph must have the same ",
                     plan.params.size(), " parameters; got ", g.params().size());
    PERMAFROST_CHECK(g.units().size() == graph.units().size(), "make_plan: every bucket's graph must have the same ",
                     graph.units().size(), " units; got ", g.units().size());
    plan.needs.push_back(analyse_needs(g, trainable));
    ProgramOptions options = request.options;
    options.workers = {request.world.threads, request.world.device};
    plan.programs.push_back(build_program(g, plan.needs.back(), placements, options));
  }
  plan.phases = {PhaseKind::kMicroBatches, PhaseKind::kVote,      PhaseKind::kReduceGradients,
                 PhaseKind::kGatherNorms,  PhaseKind::kOptimizer, PhaseKind::kGatherWorking};
  count_memory(plan, request);
  describe_units(plan, apply_policies(plan, request));
  count_traffic(plan);
  return plan;
}

}  // namespace permafrost
