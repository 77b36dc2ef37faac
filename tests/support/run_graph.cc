#include "tests/support/run_graph.h"

#include <algorithm>
#include <cstring>

#include "core/base/narrow.h"
#include "core/graph/freezing.h"
#include "core/kernels/shape_ops.h"
#include "core/weights/initializer.h"

namespace permafrost::testing {

namespace {
constexpr int kNanByte = 0xFF;  // NaN in f32, bf16, f16 and f64; -1 in integers

Buffer nan_memory(int64_t bytes, Device device) {
  Buffer memory = Buffer::pinned("graph runner", bytes, device);
  if (bytes > 0) std::memset(memory.data(), kNanByte, static_cast<size_t>(bytes));
  return memory;
}
}  // namespace

GraphRunner::GraphRunner(const Graph& graph, const std::vector<bool>& trainable, const Options& options)
    : graph_(graph),
      options_(options),
      needs_(analyse_needs(graph, trainable)),
      context_(device_context(options.threads)) {
  std::vector<ParamPlacement> placements;
  for (size_t p = 0; p < graph.params().size(); ++p) {
    const Shape& shape = graph.params()[p].shape;
    const TensorSpec stored{shape, shape.rank() <= 1 ? DType::kF32 : options.matrices};
    // The offset of a parameter is its index: each has memory of its own here.
    placements.push_back({trainable[p] ? Region::kWorking : Region::kFrozen, static_cast<int64_t>(p), stored});
  }
  place_params(placements);
  ProgramOptions program_options;
  program_options.workers = {options.threads, context_.device.kind};
  program_options.reuse_memory = false;
  program_options.keep_all_values = options.keep_values;
  program_options.keep_gradients = true;
  program_ = build_program(graph, needs_, placements, program_options);
  arena_ = nan_memory(program_.arena_bytes, context_.device);
  inputs_ = nan_memory(program_.input_bytes, context_.device);
  state_ = nan_memory(program_.state_bytes, context_.device);
}

void GraphRunner::place_params(const std::vector<ParamPlacement>& placements) {
  if (!options_.params_together) {
    for (const auto& [region, offset, stored] : placements)
      params_.push_back(apart_.emplace_back(filled_tensor(stored.dtype, stored.shape, kNanByte)));
    return;
  }
  int64_t bytes = 0;
  for (const ParamPlacement& placement : placements) bytes += round_up(placement.stored.bytes(), kArenaAlignment);
  together_ = nan_memory(bytes, context_.device);
  std::byte* next = together_.data();
  for (const ParamPlacement& placement : placements) {
    params_.emplace_back(next, placement.stored, context_.device);
    next += round_up(placement.stored.bytes(), kArenaAlignment);
  }
}

Tensor GraphRunner::tensor(const TensorRef& ref) const {
  const auto in = [&](const Buffer& memory) { return Tensor(memory.data() + ref.offset, ref.spec, memory.device()); };
  switch (ref.region) {
    case Region::kNone:
      return {};
    case Region::kArena:
      return in(arena_);
    case Region::kInputs:
      return in(inputs_);
    case Region::kState:
      return in(state_);
    case Region::kFrozen:
    case Region::kWorking:
      return params_[static_cast<size_t>(ref.offset)];
    case Region::kSlots:
      break;  // nothing is sharded here
  }
  return {};
}

std::vector<Tensor> GraphRunner::tensors(const std::vector<TensorRef>& refs) const {
  std::vector<Tensor> result;
  for (const TensorRef& ref : refs) result.push_back(tensor(ref));
  return result;
}

BitMask GraphRunner::adjoining(const std::vector<Tensor>& params) const {
  if (!options_.params_together) return 0;
  BitMask mask = 0;
  for (size_t i = 1; i < params.size(); ++i) {
    const Tensor &before = params[i - 1], &param = params[i];
    if (!before.defined() || !param.defined() || param.dtype() != before.dtype()) continue;
    if (param.raw() == static_cast<std::byte*>(before.raw()) + before.bytes()) mask |= bit(i);
  }
  return mask;
}

double GraphRunner::run() {
  const Context& context = context_;
  for (const PlanStep& step : program_.steps) {
    const Op& op = *graph_.ops()[static_cast<size_t>(step.op)].op;
    const auto in = tensors(step.inputs), params = tensors(step.params), out = tensors(step.outputs),
               saved = tensors(step.saved), douts = tensors(step.doutputs), dins = tensors(step.dinputs),
               dparams = tensors(step.dparams);
    const BitMask together = adjoining(params);
    switch (step.kind) {
      case StepKind::kForward:
        if (step.before < 0)
          op.forward(context, {in, params, out, saved, tensor(step.workspace), together});
        else
          op.forward_with(context, {in, params, out, saved, tensor(step.workspace), together},
                          tensors(step.before_inputs));
        break;
      case StepKind::kBackward:
        op.backward(context, {in, params, out, saved, douts, dins, step.dinput_modes, dparams, step.dparam_modes,
                              tensor(step.workspace), together});
        break;
      case StepKind::kAddGradient:
        accumulate(context, douts[0], dins[0], GradMode::kAdd);
        break;
      case StepKind::kCopyGradient:
        accumulate(context, douts[0], dins[0], GradMode::kOverwrite);
        break;
      case StepKind::kSumGradient:
        break;
    }
  }
  finish_kernels();
  return graph_.loss() < 0 ? 0 : *tensor(program_.values[static_cast<size_t>(graph_.loss())]).data<double>();
}

Tensor GraphRunner::param(const std::string& name) const {
  const int index = graph_.find_param(name);
  PERMAFROST_CHECK(index >= 0, "GraphRunner: a parameter of the graph expected; got ", name);
  return params_[static_cast<size_t>(index)];
}

Tensor GraphRunner::input(const std::string& name) const {
  const int index = graph_.find_value(name);
  PERMAFROST_CHECK(index >= 0, "GraphRunner: an input of the graph expected; got ", name);
  return tensor(program_.values[static_cast<size_t>(index)]);
}

Tensor GraphRunner::value(const std::string& name) const {
  const int index = graph_.find_value(name);
  return index < 0 ? Tensor() : tensor(program_.values[static_cast<size_t>(index)]);
}

Tensor GraphRunner::value_gradient(const std::string& name) const {
  const int index = graph_.find_value(name);
  return index < 0 ? Tensor() : tensor(program_.value_gradients[static_cast<size_t>(index)]);
}

Tensor GraphRunner::gradient(const std::string& param) const {
  const int index = graph_.find_param(param);
  return index < 0 ? Tensor() : tensor(program_.param_gradients[static_cast<size_t>(index)]);
}

void GraphRunner::assign(const Tensor& tensor, const std::vector<double>& values) {
  const OwnedTensor converted = make_tensor(tensor.dtype(), tensor.shape(), values);
  std::memcpy(tensor.raw(), converted.view().raw(), static_cast<size_t>(tensor.bytes()));
}

void GraphRunner::set_loss_scale(double scale) const {
  if (const Tensor input = value("loss_scale"); input.defined()) assign(input, {scale});
}

void GraphRunner::initialise(uint64_t seed) {
  for (size_t p = 0; p < params_.size(); ++p) {
    const ParamInfo& info = graph_.params()[p];
    const Tensor& t = params_[p];
    fill(info.initializer, seed, info.name, t.dtype(), 0,
         {static_cast<std::byte*>(t.raw()), static_cast<size_t>(t.bytes())});
  }
}

std::vector<bool> trainable_by(const Graph& graph, const std::vector<std::string>& patterns) {
  std::vector<bool> trainable;
  for (const ParamInfo& info : graph.params())
    trainable.push_back(
        std::ranges::any_of(patterns, [&](const std::string& p) { return name_matches(p, info.name); }));
  return trainable;
}

}  // namespace permafrost::testing
