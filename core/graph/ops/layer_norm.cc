#include "core/graph/ops/layer_norm.h"

#include "core/graph/constants.h"
#include "core/kernels/layer_norm.h"

namespace permafrost {

namespace {

class LayerNormOp final : public Op {
 public:
  explicit LayerNormOp(float eps) : eps_(eps) {}
  std::string_view kind() const override { return "layer_norm"; }
  std::string constants() const override { return Constants().add("eps", eps_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape> params) const override {
    if (inputs[0].shape.rank() < 1 || !is_activation_dtype(inputs[0].dtype))
      fail(ErrorKind::kShapeMismatch, "layer_norm: input must be (..., C) f32, bf16 or f16; got ", inputs[0]);
    const Shape vector{inputs[0].shape[-1]};
    for (const Shape& param : params)
      if (!(param == vector))
        fail(ErrorKind::kShapeMismatch, "layer_norm: gain and bias must be ", vector, " for input ", inputs[0],
             "; got ", param);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs& needs) const override {
    BackwardUse use;
    use.inputs = bit(0);
    if (needs.inputs) use.params = bit(0);
    return use;
  }
  std::vector<TensorSpec> saved(const OpSpecs& specs, const Needs&) const override {
    const TensorSpec statistics{{rows_of(specs.inputs[0].shape)}, DType::kF32};
    return {statistics, statistics};
  }
  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs& needs, const Workers&) const override {
    if (pass == Pass::kForward) return 0;
    return layer_norm_workspace_bytes(rows_of(specs.inputs[0].shape), specs.inputs[0].shape[-1], needs.params != 0);
  }
  OpFlops flops(const OpSpecs& specs) const override {
    const double n = static_cast<double>(specs.inputs[0].shape.elements());
    return {8 * n, 10 * n, 4 * n};
  }
  std::optional<size_t> in_place_input() const override { return 0; }

  bool takes_along(const Op& before) const override { return before.kind() == "add"; }

  void forward(const Context& context, const ForwardArgs& args) const override { run(context, args, {}, {}); }
  void forward_with(const Context& context, const ForwardArgs& args, std::span<const Tensor> before) const override {
    run(context, args, matrix(before[0]), matrix(before[1]));
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    LayerNormBackward call;
    call.dy = matrix(args.doutputs[0]);
    call.x = matrix(args.inputs[0]);
    call.gain = args.params[0];
    call.mean = args.saved[0];
    call.rstd = args.saved[1];
    if (args.dinputs[0].defined()) call.dx = matrix(args.dinputs[0]);
    call.dgain = args.dparams[0];
    call.dbias = args.dparams[1];
    call.dx_mode = args.dinput_modes[0];
    call.dgain_mode = args.dparam_modes[0];
    call.dbias_mode = args.dparam_modes[1];
    layer_norm_backward(context, call, args.workspace);
  }

 private:
  /// a, b: the sum that x is, to be made first; or none.
  void run(const Context& context, const ForwardArgs& args, const Tensor& a, const Tensor& b) const {
    LayerNormForward call;
    call.a = a;
    call.b = b;
    call.x = matrix(args.inputs[0]);
    call.gain = args.params[0];
    call.bias = args.params[1];
    call.y = matrix(args.outputs[0]);
    if (!args.saved.empty()) call.mean = args.saved[0], call.rstd = args.saved[1];
    call.eps = eps_;
    layer_norm_forward(context, call);
  }

  static int64_t rows_of(const Shape& shape) { return shape[-1] == 0 ? 0 : shape.elements() / shape[-1]; }
  static Tensor matrix(const Tensor& t) { return t.reshaped({rows_of(t.shape()), t.dim(-1)}); }

  float eps_;
};

}  // namespace

Value layer_norm(Graph& graph, Value x, Param gain, Param bias, float eps) {
  return graph.apply(std::make_unique<LayerNormOp>(eps), {x}, {gain, bias});
}

}  // namespace permafrost
