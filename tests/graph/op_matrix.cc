#include "tests/graph/op_matrix.h"

#include <algorithm>
#include <cstring>

namespace permafrost::testing {

namespace {

OwnedTensor copy_of(const Tensor& t) {
  OwnedTensor copy(t.dtype(), t.shape());
  if (t.bytes() > 0) std::memcpy(copy.view().raw(), t.raw(), static_cast<size_t>(t.bytes()));
  return copy;
}

std::vector<Tensor> views(const std::vector<OwnedTensor>& owned) { return {owned.begin(), owned.end()}; }

bool all_intact(const std::vector<OwnedTensor>& owned) {
  return std::ranges::all_of(owned, [](const OwnedTensor& t) { return !t.view().defined() || t.canaries_intact(); });
}

/// Everything about a case in one compute dtype that does not depend on what is needed.
struct Problem {
  const OpCase& op_case;
  Graph graph;
  OpSpecs specs;
  std::vector<OwnedTensor> inputs, params;
  std::vector<OwnedTensor> together;  // what holds the parameters that lie together
  std::vector<Tensor> param_views;    // where the operation finds each
  BitMask adjoining = 0;              // those that lie right behind the one before
  OwnedTensor dout;
  std::vector<double> output;                         // of the reference
  std::vector<std::vector<double>> dinputs, dparams;  // of the reference; empty where not differentiable
  const Op& op() const { return *graph.ops()[0].op; }
};

std::vector<Duals> as_duals(const std::vector<OwnedTensor>& tensors) {
  std::vector<Duals> duals;
  for (const OwnedTensor& t : tensors) {
    const std::vector<double> values = values_of(t);
    duals.emplace_back(values.begin(), values.end());
  }
  return duals;
}

void place_params(Problem& p) {
  p.param_views = views(p.params);
  for (const std::vector<size_t>& group : p.op_case.together) {
    int64_t bytes = 0;
    for (size_t i : group) bytes += p.params[i].view().bytes();
    const Tensor memory = p.together.emplace_back(DType::kU8, Shape{bytes});
    auto* next = static_cast<std::byte*>(memory.raw());
    for (size_t i : group) {
      const Tensor from = p.params[i];
      std::memcpy(next, from.raw(), static_cast<size_t>(from.bytes()));
      p.param_views[i] = Tensor(next, from.spec(), from.device());
      next += from.bytes();
      if (i != group.front()) p.adjoining |= bit(i);
    }
  }
}

void find_reference(Problem& p) {
  const std::vector<Duals> inputs = as_duals(p.inputs), params = as_duals(p.params);
  for (const Dual& value : p.op_case.reference(inputs, params)) p.output.push_back(value.value);
  const std::vector<double> cotangent = p.op_case.is_loss ? std::vector<double>{1.0} : values_of(p.dout);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!has(p.op_case.differentiable_inputs, i)) {
      p.dinputs.emplace_back();
      continue;
    }
    p.dinputs.push_back(gradient_by_duals(
        [&](const Duals& x) {
          std::vector<Duals> changed = inputs;
          changed[i] = x;
          return p.op_case.reference(changed, params);
        },
        values_of(p.inputs[i]), cotangent));
  }
  for (size_t i = 0; i < params.size(); ++i)
    p.dparams.push_back(gradient_by_duals(
        [&](const Duals& x) {
          std::vector<Duals> changed = params;
          changed[i] = x;
          return p.op_case.reference(inputs, changed);
        },
        values_of(p.params[i]), cotangent));
}

Problem make_problem(const OpCase& op_case, DType compute) {
  Problem p{op_case, Graph(compute), {}, {}, {}, {}, {}, 0, {}, {}, {}, {}};
  op_case.build(p.graph);
  EXPECT_EQ(p.graph.ops().size(), 1u);
  const OpInfo& op = p.graph.ops()[0];
  p.specs = p.graph.specs_of(op);
  for (size_t i = 0; i < p.specs.inputs.size(); ++i) {
    const TensorSpec& spec = p.specs.inputs[i];
    const auto fixed = op_case.fixed.find(i);
    p.inputs.push_back(fixed == op_case.fixed.end() ? random_tensor(spec.dtype, spec.shape, 10 + i)
                                                    : make_tensor(spec.dtype, spec.shape, fixed->second));
  }
  for (size_t i = 0; i < p.specs.params.size(); ++i)  // vectors are kept in f32
    p.params.push_back(random_tensor(p.specs.params[i].rank() > 1 ? compute : DType::kF32, p.specs.params[i], 20 + i));
  place_params(p);
  if (!op_case.is_loss) p.dout = random_tensor(compute, p.specs.outputs[op_case.output].shape, 30);
  find_reference(p);
  return p;
}

/// A few roundings of the compute dtype relative to the largest value: what the kernels' own tests measure exactly.
::testing::AssertionResult agrees(const Tensor& got, const std::vector<double>& want, DType compute) {
  double largest = 0;
  for (double value : want) largest = std::max(largest, std::abs(value));
  const double unit = compute == DType::kBF16 ? 6 * 0x1p-8 : compute == DType::kF16 ? 6 * 0x1p-11 : 64 * 0x1p-24;
  return all_close(got, want, {unit * largest, 0});
}

struct Variant {
  Needs needs;
  GradMode mode = GradMode::kOverwrite;
  bool in_place = false;
  int threads = 1;
};

struct Outcome {
  OwnedTensor output;
  std::vector<OwnedTensor> dinputs, dparams;  // undefined where not needed
};

/// Tensors that the mask names; the others undefined.
std::vector<Tensor> named(const std::vector<Tensor>& tensors, BitMask mask) {
  std::vector<Tensor> result(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i)
    if (has(mask, i)) result[i] = tensors[i];
  return result;
}

std::vector<GradMode> input_modes(const Problem& p, GradMode mode) {
  std::vector<GradMode> modes;
  for (size_t i = 0; i < p.inputs.size(); ++i)
    modes.push_back(p.op().adds_input_gradient(i) ? mode : GradMode::kOverwrite);
  return modes;
}

/// Gradients start as something else: 0xff bytes (NaN) when overwritten, numbers when added to.
OwnedTensor gradient_buffer(DType dtype, const Shape& shape, GradMode mode, uint64_t seed) {
  return mode == GradMode::kAdd ? random_tensor(dtype, shape, seed) : filled_tensor(dtype, shape, 0xff);
}

OwnedTensor workspace_for(const Problem& p, Pass pass, const Variant& v) {
  return filled_tensor(DType::kU8, {p.op().workspace_bytes(p.specs, pass, v.needs, {v.threads, used_device().kind})},
                       0xff);
}

Outcome run(const Problem& p, const Variant& v) {
  const Op& op = p.op();
  Outcome result;
  std::vector<OwnedTensor> inputs, outputs, saved;
  for (const OwnedTensor& input : p.inputs) inputs.push_back(copy_of(input));
  for (const TensorSpec& spec : p.specs.outputs) outputs.push_back(filled_tensor(spec.dtype, spec.shape, 0xff));
  if (v.needs.any())
    for (const TensorSpec& spec : op.saved(p.specs, v.needs))
      saved.push_back(filled_tensor(spec.dtype, spec.shape, 0xff));
  std::vector<Tensor> output_views = views(outputs);
  if (v.in_place) output_views[0] = inputs[*op.in_place_input()];

  const std::vector<Tensor>&params = p.param_views, input_views = views(inputs), saved_views = views(saved);
  OwnedTensor workspace = workspace_for(p, Pass::kForward, v);
  op.forward(device_context(v.threads), {input_views, params, output_views, saved_views, workspace, p.adjoining});
  EXPECT_TRUE(workspace.canaries_intact() && all_intact(outputs) && all_intact(saved) && all_intact(inputs));
  result.output = copy_of(output_views[p.op_case.output]);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (!v.in_place || i != *op.in_place_input()) {
      EXPECT_TRUE(same_bits(inputs[i], p.inputs[i])) << "input " << i;
    }
  if (!v.needs.any()) return result;

  const BackwardUse use = op.backward_use(v.needs);
  const std::vector<GradMode> modes = input_modes(p, v.mode);
  for (size_t i = 0; i < inputs.size(); ++i)
    result.dinputs.push_back(has(v.needs.inputs, i)
                                 ? gradient_buffer(p.graph.compute(), p.specs.inputs[i].shape, modes[i], 40 + i)
                                 : OwnedTensor());
  for (size_t i = 0; i < params.size(); ++i)
    result.dparams.push_back(has(v.needs.params, i) ? gradient_buffer(DType::kF32, p.specs.params[i], v.mode, 50 + i)
                                                    : OwnedTensor());
  std::vector<OwnedTensor> douts(outputs.size());
  if (!p.op_case.is_loss) douts[p.op_case.output] = copy_of(p.dout);
  const std::vector<Tensor> used_inputs = named(input_views, use.inputs), used_params = named(params, use.params),
                            used_outputs = named(output_views, use.outputs), dout_views = views(douts),
                            dinputs = views(result.dinputs), dparams = views(result.dparams);
  const std::vector<GradMode> param_modes(params.size(), v.mode);
  workspace = workspace_for(p, Pass::kBackward, v);
  op.backward(device_context(v.threads), {used_inputs, used_params, used_outputs, saved_views, dout_views, dinputs,
                                          modes, dparams, param_modes, workspace, p.adjoining});
  EXPECT_TRUE(workspace.canaries_intact() && all_intact(outputs) && all_intact(saved) && all_intact(inputs) &&
              all_intact(douts) && all_intact(p.params) && all_intact(p.together) && all_intact(result.dinputs) &&
              all_intact(result.dparams));
  EXPECT_TRUE(same_bits(output_views[p.op_case.output], result.output));
  if (!p.op_case.is_loss && !use.clobbers_dout) {
    EXPECT_TRUE(same_bits(douts[p.op_case.output], p.dout));
  }
  return result;
}

std::vector<double> sum(std::vector<double> a, const std::vector<double>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

/// Gradients of one run against the reference and, when overwritten, against the bits of the run with all gradients.
void check_gradients(const Problem& p, const Variant& v, const Outcome& got, const Outcome& everything) {
  const DType compute = p.graph.compute();
  const std::vector<GradMode> modes = input_modes(p, v.mode);
  const auto check = [&](const OwnedTensor& gradient, const std::vector<double>& want, GradMode mode, uint64_t seed,
                         const OwnedTensor& unfrozen) {
    if (!gradient.view().defined()) return;
    if (mode == GradMode::kAdd) {
      const auto base = values_of(random_tensor(gradient.view().dtype(), gradient.view().shape(), seed));
      EXPECT_TRUE(agrees(gradient, sum(want, base), compute));
    } else {
      EXPECT_TRUE(agrees(gradient, want, compute));
      EXPECT_TRUE(same_bits(gradient, unfrozen));
    }
  };
  for (size_t i = 0; i < got.dinputs.size(); ++i) {
    SCOPED_TRACE(concat("input ", i));
    check(got.dinputs[i], p.dinputs[i], modes[i], 40 + i, everything.dinputs[i]);
  }
  for (size_t i = 0; i < got.dparams.size(); ++i) {
    SCOPED_TRACE(concat("param ", i));
    check(got.dparams[i], p.dparams[i], v.mode, 50 + i, everything.dparams[i]);
  }
}

/// All subsets of a mask, itself first, the empty one last.
std::vector<BitMask> subsets(BitMask mask) {
  std::vector<BitMask> result{mask};
  for (BitMask subset = mask; subset != 0; result.push_back(subset)) subset = (subset - 1) & mask;
  return result;
}

/// Where the plan may let the gradients of input and output share memory, backward must leave it as it is.
void check_shared_gradient(const Problem& p) {
  const BitMask passing = p.op().passes_gradient(p.specs);
  if (!passing) return;
  const OwnedTensor shared = copy_of(p.dout);
  std::vector<Tensor> dinputs(p.inputs.size()), none_inputs(p.inputs.size()), none_params(p.params.size()), outputs(1);
  for (size_t i = 0; i < dinputs.size(); ++i)
    if (has(passing, i)) dinputs[i] = shared;
  const std::vector<Tensor> dout{shared};
  for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
    const std::vector<GradMode> modes(dinputs.size(), mode), param_modes(none_params.size(), mode);
    p.op().backward(device_context(),
                    {none_inputs, none_params, outputs, {}, dout, dinputs, modes, none_params, param_modes, {}});
    EXPECT_TRUE(same_bits(shared, p.dout));
  }
}

void check_in(const OpCase& op_case, DType compute) {
  const Problem p = make_problem(op_case, compute);
  const BitMask all_params = bit(p.params.size()) - 1;
  const Outcome everything = run(p, {{op_case.differentiable_inputs, all_params}});
  EXPECT_TRUE(agrees(everything.output, p.output, compute));
  for (BitMask inputs : subsets(op_case.differentiable_inputs))
    for (BitMask params : subsets(all_params))
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd})
        for (bool in_place : {false, true})
          for (int threads : {1, 2}) {
            const Variant v{{inputs, params}, mode, in_place, threads};
            const auto place = p.op().in_place_input();
            if (in_place) {
              if (!place || !(p.specs.inputs[*place] == p.specs.outputs[0])) continue;
              if (v.needs.any() && has(p.op().backward_use(v.needs).inputs, *place)) continue;
            }
            SCOPED_TRACE(concat("needs inputs ", inputs, " params ", params, mode == GradMode::kAdd ? " added" : "",
                                in_place ? " in place" : "", " threads ", threads));
            const Outcome got = run(p, v);
            EXPECT_TRUE(same_bits(got.output, everything.output));
            check_gradients(p, v, got, everything);
            if (::testing::Test::HasFailure()) return;  // one report is enough
          }
  check_shared_gradient(p);
}

}  // namespace

void check_freezing_matrix(const OpCase& op_case) {
  for (DType compute : tested_dtypes()) {
    SCOPED_TRACE(concat(op_case.name, " in ", to_string(compute)));
    check_in(op_case, compute);
  }
}

}  // namespace permafrost::testing
