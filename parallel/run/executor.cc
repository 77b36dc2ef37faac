#include "parallel/run/executor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/base/narrow.h"
#include "core/device/bytes.h"
#include "core/kernels/shape_ops.h"

namespace permafrost {

Executor::Executor(const Plan& plan, const StepMemory& memory, const Context& context, const ExecutorOptions& options,
                   Group* gather_group)
    : plan_(plan),
      memory_(memory),
      context_(context),
      options_(options),
      slots_(plan, memory, context, gather_group),
      copied_(plan),
      copied_memory_("frozen biases", copied_.bytes(), context.device),
      steps_(plan.programs.size()),
      segments_(plan.programs.size()),
      inputs_(memory, context),
      graphs_(context, [this](const WorkGraphs::Key& key) { return name_of(key); }) {
  if (!(memory.device == context.device))
    fail(ErrorKind::kInvalidArgument, "executor: context must be of the device of its memory; got another");
  if (on_cuda()) staging_ = Buffer::pinned("loss", sizeof(double), context.device);
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket) {
    bind(bucket);
    bind_gathers(bucket);
    const int loss = plan.graphs[bucket].loss();
    losses_.push_back(loss < 0 ? Tensor() : memory.tensor(plan.programs[bucket].values[static_cast<size_t>(loss)]));
  }
}

void Executor::bind(size_t bucket) {
  const Program& program = plan_.programs[bucket];
  const auto tensors = [&](const std::vector<TensorRef>& refs) {
    std::vector<Tensor> bound;
    for (const TensorRef& ref : refs) bound.push_back(memory_.tensor(ref));
    return bound;
  };
  for (const PlanStep& step : program.steps) {
    BoundStep& bound = steps_[bucket].emplace_back();
    bound.plan = &step;
    bound.op = plan_.graphs[bucket].ops()[static_cast<size_t>(step.op)].op.get();
    bound.inputs = tensors(step.inputs);
    bound.params = tensors(step.params);
    bound.adjoining = adjoining_params(plan_.graphs[bucket], step);
    for (size_t i = 0; i < step.params.size(); ++i)
      if (const ComputeCopies::Copy* copy = copied_.find(plan_, bucket, step, i)) {
        bound.params[i] = copied(*copy);
        bound.adjoining &= ~(bit(i) | bit(i) << 1);  // copies have places of their own
      }
    bound.outputs = tensors(step.outputs);
    bound.saved = tensors(step.saved);
    bound.doutputs = tensors(step.doutputs);
    bound.dinputs = tensors(step.dinputs);
    bound.dparams = tensors(step.dparams);
    bound.before_inputs = tensors(step.before_inputs);
    bound.workspace = memory_.tensor(step.workspace);
  }
  if (!options_.poison_released) return;
  for (const PlannedBuffer& buffer : program.buffers) {
    if (buffer.last_step >= static_cast<int>(program.steps.size())) continue;  // kept to the end
    steps_[bucket][static_cast<size_t>(buffer.last_step)].released.emplace_back(
        memory_.arena.data() + buffer.offset, DType::kU8, Shape{buffer.bytes}, memory_.device);
  }
}

Tensor Executor::copied(const ComputeCopies::Copy& copy) const {
  return {copied_memory_.data() + copy.offset, copy.dtype, copy.from.spec.shape, context_.device};
}

void Executor::fill_copies() {
  if (std::exchange(copies_are_filled_, true)) return;
  for (const ComputeCopies::Copy& copy : copied_.all())
    accumulate(context_, memory_.tensor(copy.from), copied(copy), GradMode::kOverwrite);
}

void Executor::bind_gathers(size_t bucket) {
  const std::vector<Gather>& gathers = plan_.programs[bucket].gathers;
  for (size_t g = 0; g < gathers.size(); ++g) {
    steps_[bucket][static_cast<size_t>(gathers[g].first_use)].acquired.push_back(g);
    steps_[bucket][static_cast<size_t>(gathers[g].last_use)].let_go.push_back(g);
  }
  const std::vector<BoundStep>& steps = steps_[bucket];
  for (size_t first = 0, end = 1; end <= steps.size(); ++end) {
    if (end < steps.size() && steps[end - 1].let_go.empty() && steps[end].acquired.empty()) continue;
    segments_[bucket].push_back({first, end});
    first = end;
  }
}

template <typename Give>
void Executor::walk(size_t bucket, Give give) {
  const std::vector<Gather>& gathers = plan_.programs[bucket].gathers;
  std::array<WeightSlots::Lease, kGatherSlots> leases;
  size_t acquired = 0;
  fill_copies();
  if (!gathers.empty()) slots_.begin(bucket);
  if (observer_) observer_->begin_program(bucket);
  for (const Segment& segment : segments_[bucket]) {
    const std::vector<size_t>& needed = steps_[bucket][segment.first].acquired;
    const std::vector<size_t>& let_go = steps_[bucket][segment.end - 1].let_go;
    if (observer_ && !needed.empty()) observer_->begin_gather(segment.first);
    for (size_t g : needed) leases[static_cast<size_t>(gathers[g].slot)] = slots_.acquire(g);
    if (observer_ && !needed.empty()) observer_->end_gather(segment.first);
    acquired += needed.size();
    if (give(segment)) {
      leases = {};
      if (!gathers.empty()) slots_.pass_over(acquired);
      return;
    }
    if (options_.poison_released)  // all of them before any lease goes: then slots are filled anew
      for (size_t g : let_go) poison(gathers[g]);
    for (size_t g : let_go) leases[static_cast<size_t>(gathers[g].slot)] = {};
  }
}

template <typename After>
bool Executor::give_steps(size_t bucket, const Segment& segment, GradientSink* sink, After after) {
  for (size_t index = segment.first; index < segment.end; ++index) {
    const BoundStep& step = steps_[bucket][index];
    if (observer_) observer_->begin_step(index);
    execute(step, sink);
    if (observer_) observer_->end_step(index);
    if (after(step)) return true;
  }
  return false;
}

void Executor::give_all(size_t bucket, GradientSink* sink) {
  walk(bucket, [&](const Segment& segment) {
    return give_steps(bucket, segment, sink, [](const BoundStep&) { return false; });
  });
}

void Executor::poison(const Gather& gather) const {
  fill_with_nan(memory_.slot(plan_.slot_begin(gather.slot)), plan_.slot_bytes[static_cast<size_t>(gather.slot)]);
}

void Executor::fill_with_nan(std::byte* memory, int64_t bytes) const { fill_bytes(context_, memory, 0xFF, bytes); }

/// tensor, or on CUDA a copy of it in the front of `staging`, when it is there.
Tensor Executor::host_copy(const Tensor& tensor, Buffer& staging) const {
  if (!on_cuda() || !tensor.defined()) return tensor;
  copy_bytes(context_, staging.data(), tensor.raw(), tensor.bytes());
  finish(context_);
  return {staging.data(), tensor.spec()};
}

double Executor::loss(size_t bucket) const {
  finish(context_);  // without a loss, too
  return losses_[bucket].defined() ? *host_copy(losses_[bucket], staging_).data<double>() : 0.0;
}

void Executor::only_gather(size_t bucket) {
  if (plan_.gather.kind != GatherKind::kCollective) return;
  if (plan_.programs[bucket].gathers.empty()) return;
  slots_.begin(bucket);
  slots_.pass_over(0);
}

void Executor::execute(const BoundStep& step, GradientSink* sink) const {
  switch (step.plan->kind) {
    case StepKind::kForward: {
      const ForwardArgs args{step.inputs, step.params, step.outputs, step.saved, step.workspace, step.adjoining};
      if (step.plan->before < 0)
        step.op->forward(context_, args);
      else
        step.op->forward_with(context_, args, step.before_inputs);
      break;
    }
    case StepKind::kBackward:
      step.op->backward(
          context_, {step.inputs, step.params, step.outputs, step.saved, step.doutputs, step.dinputs,
                     step.plan->dinput_modes, step.dparams, step.plan->dparam_modes, step.workspace, step.adjoining});
      break;
    case StepKind::kAddGradient:
      accumulate(context_, step.doutputs[0], step.dinputs[0], GradMode::kAdd);
      break;
    case StepKind::kCopyGradient:
      accumulate(context_, step.doutputs[0], step.dinputs[0], GradMode::kOverwrite);
      break;
    case StepKind::kSumGradient:
      if (sink) sink->add(step.plan->param, step.dparams[0]);
      break;
  }
  for (const Tensor& released : step.released) fill_with_nan(static_cast<std::byte*>(released.raw()), released.bytes());
}

std::string_view Executor::why_no_graphs() const {
  if (!on_cuda()) return "";
  if (!options_.graphs) return "they are off";
  if (observer_ && observer_->needs_steps()) return "operations are observed one by one";
  if (options_.poison_released) return "released memory is filled";
  return "";
}

bool Executor::graphs_between_gathers(size_t bucket) const {
  return on_cuda() && why_no_graphs().empty() && !plan_.programs[bucket].gathers.empty() &&
         plan_.gather.kind == GatherKind::kCollective;
}

std::string Executor::name_of(const WorkGraphs::Key& key) const {
  if (key.segment < 0) return concat("program ", key.work);
  const Segment& segment = segments_[key.work][static_cast<size_t>(key.segment)];
  return concat("program ", key.work, ", steps ", segment.first, " to ", segment.end - 1);
}

/// Copies into slots are part of a program's graph. What ranks gather from each other is not: it needs the host, and
/// stands between graphs, as do the events that order it.
void Executor::give_graphs(size_t bucket, int work, GradientSink* sink) {
  if (!graphs_between_gathers(bucket)) {
    graphs_.run({bucket, work}, [&] { give_all(bucket, sink); });
    return;
  }
  walk(bucket, [&](const Segment& segment) {
    const auto give = [&] { give_steps(bucket, segment, sink, [](const BoundStep&) { return false; }); };
    if (segment.end - segment.first < 2)
      give();
    else
      graphs_.run({bucket, work, narrow<int>(&segment - segments_[bucket].data())}, give);
    return false;
  });
}

void Executor::start(size_t bucket, GradientSink* sink, double* loss) {
  const int work = sink ? sink->same_work() : 0;
  inputs_.take(plan_.programs[bucket].input_bytes);
  if (on_cuda() && work >= 0 && why_no_graphs().empty())
    give_graphs(bucket, work, sink);
  else
    give_all(bucket, sink);
  slots_.count_copies(bucket);
  if (loss && losses_[bucket].defined()) copy_bytes(context_, loss, losses_[bucket].raw(), sizeof(double));
}

double Executor::run(size_t bucket, GradientSink* sink) {
  upload_inputs(bucket);
  start(bucket, sink, nullptr);
  return loss(bucket);
}

double Executor::forward(size_t bucket) {
  const Graph& graph = plan_.graphs[bucket];
  PERMAFROST_CHECK(graph.loss() >= 0, "executor: forward needs a graph with a loss; got none");
  const int last = graph.values()[static_cast<size_t>(graph.loss())].producer;
  upload_inputs(bucket);
  inputs_.take(plan_.programs[bucket].input_bytes);
  const auto is_last = [&](const BoundStep& step) {
    return step.plan->kind == StepKind::kForward && step.plan->op == last;
  };
  walk(bucket, [&](const Segment& segment) { return give_steps(bucket, segment, nullptr, is_last); });
  slots_.count_copies(bucket);
  return loss(bucket);
}

namespace {

template <typename T>
int64_t first_non_finite(const Tensor& tensor) {
  const T* data = tensor.data<T>();
  for (int64_t i = 0; i < tensor.elements(); ++i)
    if (!std::isfinite(static_cast<float>(data[i]))) return i;
  return -1;
}

/// Flat index of the first element that is not finite, or -1; `number` gets it.
int64_t find_bad(const Tensor& tensor, double& number) {
  if (!tensor.defined()) return -1;
  if (tensor.dtype() == DType::kF32) {
    const int64_t i = first_non_finite<float>(tensor);
    if (i >= 0) number = static_cast<double>(tensor.data<float>()[i]);
    return i;
  }
  if (tensor.dtype() == DType::kBF16) {
    const int64_t i = first_non_finite<bfloat16>(tensor);
    if (i >= 0) number = static_cast<double>(static_cast<float>(tensor.data<bfloat16>()[i]));
    return i;
  }
  if (tensor.dtype() == DType::kF16) {
    const int64_t i = first_non_finite<float16>(tensor);
    if (i >= 0) number = static_cast<double>(static_cast<float>(tensor.data<float16>()[i]));
    return i;
  }
  if (tensor.dtype() == DType::kF64) {
    for (int64_t i = 0; i < tensor.elements(); ++i)
      if (!std::isfinite(tensor.data<double>()[i])) return number = tensor.data<double>()[i], i;
  }
  return -1;
}

}  // namespace

std::optional<NonFiniteReport> Executor::find_non_finite(size_t bucket) {
  const Graph& graph = plan_.graphs[bucket];
  double number = 0;
  std::optional<NonFiniteReport> found;
  upload_inputs(bucket);
  inputs_.take(plan_.programs[bucket].input_bytes);
  const auto is_bad = [&](const BoundStep& step) {
    const OpInfo& op = graph.ops()[static_cast<size_t>(step.plan->op)];
    int unit = step.plan->unit;
    const auto look = [&](const std::string& prefix, const std::string& name, const Tensor& tensor) {
      if (found || !tensor.defined()) return;
      Buffer copy = Buffer::pinned("copy for diagnosis", on_cuda() ? tensor.bytes() : 0, context_.device);
      const int64_t bad = find_bad(host_copy(tensor, copy), number);
      if (bad >= 0) found = NonFiniteReport{prefix + name, graph.units()[static_cast<size_t>(unit)].name, bad, number};
    };
    const auto value = [&](int v) { return graph.values()[static_cast<size_t>(v)].name; };
    const auto param = [&](int p) { return graph.params()[static_cast<size_t>(p)].name; };
    if (step.plan->kind == StepKind::kForward) {
      if (step.plan->before >= 0 && step.inputs[0].raw() != step.outputs[0].raw()) {  // otherwise gone by now
        unit = graph.ops()[static_cast<size_t>(step.plan->before)].unit;
        look("", value(op.inputs[0]), step.inputs[0]);
        unit = step.plan->unit;
      }
      for (size_t i = 0; i < op.params.size(); ++i) look("", param(op.params[i]), step.params[i]);
      for (size_t i = 0; i < op.outputs.size(); ++i) look("", value(op.outputs[i]), step.outputs[i]);
    } else if (step.plan->kind == StepKind::kBackward) {
      for (size_t i = 0; i < op.inputs.size(); ++i) look("grad:", value(op.inputs[i]), step.dinputs[i]);
      for (size_t i = 0; i < op.params.size(); ++i) look("grad:", param(op.params[i]), step.dparams[i]);
    }
    return found.has_value();
  };
  walk(bucket, [&](const Segment& segment) { return give_steps(bucket, segment, nullptr, is_bad); });
  return found;
}

Tensor Executor::on_host(const TensorRef& ref) const {
  if (ref.region == Region::kInputs) return memory_.input(ref);
  const Tensor tensor = memory_.tensor(ref);
  if (!on_cuda() || !tensor.defined()) return tensor;
  Buffer& copy = copies_[{ref.region, ref.offset, tensor.bytes()}];
  if (copy.bytes() == 0) copy = Buffer::pinned("copy of a value", tensor.bytes(), context_.device);
  return host_copy(tensor, copy);
}

Tensor Executor::value(size_t bucket, std::string_view name) const {
  const int v = plan_.graphs[bucket].find_value(name);
  return v < 0 ? Tensor() : on_host(plan_.programs[bucket].values[static_cast<size_t>(v)]);
}

Tensor Executor::value_gradient(size_t bucket, std::string_view name) const {
  const int v = plan_.graphs[bucket].find_value(name);
  return v < 0 ? Tensor() : on_host(plan_.programs[bucket].value_gradients[static_cast<size_t>(v)]);
}

Tensor Executor::param_gradient(size_t bucket, std::string_view name) const {
  const int p = plan_.graphs[bucket].find_param(name);
  return p < 0 ? Tensor() : on_host(plan_.programs[bucket].param_gradients[static_cast<size_t>(p)]);
}

}  // namespace permafrost
