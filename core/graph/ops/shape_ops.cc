#include "core/graph/ops/shape_ops.h"

#include "core/graph/constants.h"
#include "core/kernels/scale.h"
#include "core/kernels/shape_ops.h"

namespace permafrost {

namespace {

using Specs = std::span<const TensorSpec>;
using Shapes = std::span<const Shape>;

void check_tokens(std::string_view op, const TensorSpec& x) {
  if (x.shape.rank() != 3) fail(ErrorKind::kShapeMismatch, op, ": values must be (B, T, C); got ", x);
}

/// (1, T, C) or (T, C) as (T, C).
Shape table_shape(std::string_view op, const Shape& shape) {
  if (shape.rank() == 2) return shape;
  if (shape.rank() == 3 && shape[0] == 1) return {shape[1], shape[2]};
  fail(ErrorKind::kShapeMismatch, op, ": a table must be (T, C) or (1, T, C); got ", shape);
}

double elements(const TensorSpec& spec) { return static_cast<double>(spec.shape.elements()); }

/// The gradient of an input that *is* the gradient of the output: nothing to do where the plan lets them share memory.
void pass_gradient(const Context& context, const Tensor& dout, const Tensor& dinput, GradMode mode) {
  if (dinput.defined() && dinput.raw() != dout.raw()) accumulate(context, dout, dinput, mode);
}

Tensor as_table(const Tensor& t) { return t.reshaped(table_shape("table", t.shape())); }

class AddOp final : public Op {
 public:
  std::string_view kind() const override { return "add"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(Specs inputs, Shapes) const override {
    if (!(inputs[0] == inputs[1]))
      fail(ErrorKind::kShapeMismatch, "add: both values must have one shape and dtype; got ", inputs[0], " and ",
           inputs[1]);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }
  std::optional<size_t> in_place_input() const override { return 0; }
  BitMask passes_gradient(const OpSpecs&) const override { return bit(0) | bit(1); }
  OpFlops flops(const OpSpecs& specs) const override { return {elements(specs.outputs[0]), 0, 0}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    add_forward(context, args.inputs[0], args.inputs[1], args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    for (size_t i = 0; i < 2; ++i) pass_gradient(context, args.doutputs[0], args.dinputs[i], args.dinput_modes[i]);
  }
};

class AddParamOp final : public Op {
 public:
  std::string_view kind() const override { return "add_param"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(Specs inputs, Shapes params) const override {
    check_tokens(kind(), inputs[0]);
    const Shape& x = inputs[0].shape;
    if (!(table_shape(kind(), params[0]) == Shape{x[1], x[2]}))
      fail(ErrorKind::kShapeMismatch, "add_param: the table must be (T, C) or (1, T, C) of the value ", x, "; got ",
           params[0]);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }
  std::optional<size_t> in_place_input() const override { return 0; }
  BitMask passes_gradient(const OpSpecs&) const override { return bit(0); }
  OpFlops flops(const OpSpecs& specs) const override {
    return {elements(specs.outputs[0]), 0, elements(specs.outputs[0])};
  }

  void forward(const Context& context, const ForwardArgs& args) const override {
    add_forward(context, args.inputs[0], as_table(args.params[0]), args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dparams[0].defined())
      sum_leading(context, args.doutputs[0], as_table(args.dparams[0]), args.dparam_modes[0]);
    pass_gradient(context, args.doutputs[0], args.dinputs[0], args.dinput_modes[0]);
  }
};

class ScaleOp final : public Op {
 public:
  std::string_view kind() const override { return "scale_by_param"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(Specs inputs, Shapes params) const override {
    if (!(params[0] == Shape{1})) fail(ErrorKind::kShapeMismatch, "scale_by_param: scale must be (1); got ", params[0]);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs& needs) const override {
    BackwardUse use;
    if (needs.params) use.inputs = bit(0);
    if (needs.inputs) use.params = bit(0);
    return use;
  }
  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs& needs, const Workers&) const override {
    return pass == Pass::kBackward && needs.params ? scale_workspace_bytes(specs.inputs[0].shape.elements()) : 0;
  }
  OpFlops flops(const OpSpecs& specs) const override {
    const double n = elements(specs.inputs[0]);
    return {n, n, 2 * n};
  }
  std::optional<size_t> in_place_input() const override { return 0; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    scale_forward(context, args.inputs[0], args.params[0], args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    scale_backward(context,
                   {args.doutputs[0], args.inputs[0], args.params[0], args.dinputs[0], args.dparams[0],
                    args.dinput_modes[0], args.dparam_modes[0]},
                   args.workspace);
  }
};

/// A parameter (T, C) or (1, T, C) for every sample, or once as it is.
class ParamValueOp final : public Op {
 public:
  /// batch < 0: once, (T, C).
  ParamValueOp(int64_t batch, DType compute) : batch_(batch), compute_(compute) {}
  std::string_view kind() const override { return batch_ < 0 ? "param_value" : "broadcast_param"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(Specs, Shapes params) const override {
    const Shape table = table_shape(kind(), params[0]);
    return {{batch_ < 0 ? table : Shape{batch_, table[0], table[1]}, compute_}};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }
  OpFlops flops(const OpSpecs& specs) const override { return {0, 0, batch_ < 0 ? 0 : elements(specs.outputs[0])}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    const Tensor table = as_table(args.params[0]);
    if (batch_ < 0)
      accumulate(context, table, args.outputs[0], GradMode::kOverwrite);
    else
      broadcast_leading(context, table, args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (!args.dparams[0].defined()) return;
    const Tensor dtable = as_table(args.dparams[0]);
    if (batch_ < 0)
      accumulate(context, args.doutputs[0], dtable, args.dparam_modes[0]);
    else
      sum_leading(context, args.doutputs[0], dtable, args.dparam_modes[0]);
  }

 private:
  int64_t batch_;
  DType compute_;
};

class BroadcastOp final : public Op {
 public:
  explicit BroadcastOp(int64_t batch) : batch_(batch) {}
  std::string_view kind() const override { return "broadcast"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(Specs inputs, Shapes) const override {
    if (inputs[0].shape.rank() != 2)
      fail(ErrorKind::kShapeMismatch, "broadcast: value must be (T, C); got ", inputs[0]);
    return {{{batch_, inputs[0].shape[0], inputs[0].shape[1]}, inputs[0].dtype}};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }
  OpFlops flops(const OpSpecs& specs) const override { return {0, elements(specs.outputs[0]), 0}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    broadcast_leading(context, args.inputs[0], args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dinputs[0].defined()) sum_leading(context, args.doutputs[0], args.dinputs[0], args.dinput_modes[0]);
  }

 private:
  int64_t batch_;
};

class ConcatOp final : public Op {
 public:
  std::string_view kind() const override { return "concat_tokens"; }
  std::string constants() const override { return {}; }
  std::vector<TensorSpec> infer(Specs inputs, Shapes) const override {
    int64_t tokens = 0;
    for (const TensorSpec& part : inputs) {
      check_tokens(kind(), part);
      if (part.dtype != inputs[0].dtype || part.shape[0] != inputs[0].shape[0] || part.shape[2] != inputs[0].shape[2])
        fail(ErrorKind::kShapeMismatch, "concat_tokens: parts must agree but for T; got ", inputs[0], " and ", part);
      tokens += part.shape[1];
    }
    return {{{inputs[0].shape[0], tokens, inputs[0].shape[2]}, inputs[0].dtype}};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    concat_tokens(context, args.inputs, args.outputs[0]);
  }
  /// The lengths of parts without gradient are not at hand in backward, so each begins where `begins_` says.
  void backward(const Context& context, const BackwardArgs& args) const override {
    for (size_t i = 0; i < args.dinputs.size(); ++i)
      if (args.dinputs[i].defined())
        slice_tokens(context, args.doutputs[0], begins_[i], args.dinputs[i], args.dinput_modes[i]);
  }
  explicit ConcatOp(std::vector<int64_t> begins) : begins_(std::move(begins)) {}

 private:
  std::vector<int64_t> begins_;
};

class SliceOp final : public Op {
 public:
  SliceOp(int64_t begin, int64_t end) : begin_(begin), end_(end) {}
  std::string_view kind() const override { return "slice_tokens"; }
  std::string constants() const override { return Constants().add("begin", begin_).add("end", end_); }
  std::vector<TensorSpec> infer(Specs inputs, Shapes) const override {
    check_tokens(kind(), inputs[0]);
    const Shape& x = inputs[0].shape;
    if (begin_ < 0 || begin_ > end_ || end_ > x[1])
      fail(ErrorKind::kShapeMismatch, "slice_tokens: tokens must lie within the ", x[1], " of the value; got ", begin_,
           "..", end_);
    return {{{x[0], end_ - begin_, x[2]}, inputs[0].dtype}};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    slice_tokens(context, args.inputs[0], begin_, args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dinputs[0].defined())
      slice_tokens_backward(context, args.doutputs[0], begin_, args.dinputs[0], args.dinput_modes[0]);
  }

 private:
  int64_t begin_, end_;
};

class OverwriteTokenOp final : public Op {
 public:
  explicit OverwriteTokenOp(int64_t row) : row_(row) {}
  std::string_view kind() const override { return "overwrite_token"; }
  std::string constants() const override { return Constants().add("row", row_); }
  std::vector<TensorSpec> infer(Specs inputs, Shapes) const override {
    check_tokens(kind(), inputs[0]);
    const Shape& x = inputs[0].shape;
    if (!(inputs[1] == TensorSpec{{x[0], 1, x[2]}, inputs[0].dtype}))
      fail(ErrorKind::kShapeMismatch, "overwrite_token: the new token must be (B, 1, C) of ", inputs[0], "; got ",
           inputs[1]);
    if (row_ < 0 || row_ >= x[1])
      fail(ErrorKind::kShapeMismatch, "overwrite_token: row must lie within ", x[1], " tokens; got ", row_);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }
  std::optional<size_t> in_place_input() const override { return 0; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    const Tensor value = args.inputs[1];
    overwrite_token(context, args.inputs[0], value.reshaped({value.dim(0), value.dim(2)}), row_, args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dinputs[1].defined()) slice_tokens(context, args.doutputs[0], row_, args.dinputs[1], args.dinput_modes[1]);
    if (args.dinputs[0].defined())
      overwrite_token_backward(context, args.doutputs[0], row_, args.dinputs[0], args.dinput_modes[0]);
  }

 private:
  int64_t row_;
};

}  // namespace

Value add(Graph& graph, Value a, Value b) { return graph.apply(std::make_unique<AddOp>(), {a, b}); }

Value add_param(Graph& graph, Value x, Param table) {
  return graph.apply(std::make_unique<AddParamOp>(), {x}, {table});
}

Value scale_by_param(Graph& graph, Value x, Param scale) {
  return graph.apply(std::make_unique<ScaleOp>(), {x}, {scale});
}

Value broadcast_param(Graph& graph, Param param, int64_t batch) {
  return graph.apply(std::make_unique<ParamValueOp>(batch, graph.compute()), {}, {param});
}

Value broadcast(Graph& graph, Value x, int64_t batch) { return graph.apply(std::make_unique<BroadcastOp>(batch), {x}); }

Value param_value(Graph& graph, Param param) {
  return graph.apply(std::make_unique<ParamValueOp>(-1, graph.compute()), {}, {param});
}

Value concat_tokens(Graph& graph, const std::vector<Value>& parts) {
  PERMAFROST_CHECK(!parts.empty(), "concat_tokens: at least one part expected; got none");
  std::vector<int64_t> begins{0};
  for (Value part : parts)
    begins.push_back(begins.back() + (graph.spec(part).shape.rank() == 3 ? graph.spec(part).shape[1] : 0));
  return graph.apply(std::make_unique<ConcatOp>(std::move(begins)), parts);
}

Value slice_tokens(Graph& graph, Value x, int64_t begin, int64_t end) {
  return graph.apply(std::make_unique<SliceOp>(begin, end), {x});
}

Value overwrite_token(Graph& graph, Value x, Value value, int64_t row) {
  return graph.apply(std::make_unique<OverwriteTokenOp>(row), {x, value});
}

}  // namespace permafrost
