#include "core/graph/ops/linear.h"

#include "core/graph/constants.h"
#include "core/kernels/activation.h"
#include "core/kernels/linear.h"

namespace permafrost {

namespace {

/// (leading axes..., C) seen as (rows, C).
Tensor as_matrix(const Tensor& t) {
  if (!t.defined()) return t;
  const int64_t width = t.dim(-1);
  return t.reshaped({width == 0 ? 0 : t.elements() / width, width});
}

/// A weight of any rank seen as (N, K).
Tensor as_weight(const Tensor& t) {
  if (!t.defined()) return t;
  return t.reshaped({t.dim(0), t.dim(0) == 0 ? 0 : t.elements() / t.dim(0)});
}

class LinearOp final : public Op {
 public:
  LinearOp(Activation activation, bool has_bias, bool wide_output)
      : activation_(activation), has_bias_(has_bias), wide_output_(wide_output) {}

  std::string_view kind() const override { return "linear"; }
  std::string constants() const override {
    return Constants().add("activation", activation_).add("bias", has_bias_).add("wide_output", wide_output_);
  }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape> params) const override {
    const TensorSpec& x = inputs[0];
    const int64_t n = params[0][0];
    const int64_t k = n == 0 ? 0 : params[0].elements() / n;
    if (x.shape.rank() < 1 || x.shape[-1] != k)
      fail(ErrorKind::kShapeMismatch, "linear: input must end in K=", k, " to fit weight ", params[0], "; got ", x);
    if (has_bias_ && !(params[1] == Shape{n}))
      fail(ErrorKind::kShapeMismatch, "linear: bias must be (N=", n, "); got ", params[1]);
    std::vector<int64_t> dims(x.shape.dims().begin(), x.shape.dims().end());
    dims.back() = n;
    return {{Shape(dims), wide_output_ ? DType::kF32 : x.dtype}};
  }

  BackwardUse backward_use(const Needs& needs) const override {
    BackwardUse use;
    if (has(needs.params, 0)) use.inputs = bit(0);
    if (needs.inputs) use.params = bit(0);
    if (activation_ != Activation::kNone) {
      use.clobbers_dout = true;
      if (activation_keeps_output(activation_)) use.outputs = bit(0);
    }
    return use;
  }

  BitMask wants_compute_dtype() const override { return has_bias_ ? bit(1) : 0; }

  std::vector<TensorSpec> saved(const OpSpecs& specs, const Needs&) const override {
    if (activation_ == Activation::kNone || activation_keeps_output(activation_)) return {};
    return {specs.outputs[0]};  // the pre-activation
  }

  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs& needs, const Workers& workers) const override {
    const int64_t n = specs.params[0][0], k = n == 0 ? 0 : specs.params[0].elements() / n;
    const int64_t m = k == 0 ? 0 : specs.inputs[0].shape.elements() / k;
    const DType compute = specs.inputs[0].dtype;
    const auto bytes = [&](LinearPass p) {
      return linear_workspace_bytes(p, m, n, k, compute, compute, workers.threads, workers.device);
    };
    if (pass == Pass::kForward) return bytes(LinearPass::kForward);
    int64_t need = 0;
    if (needs.inputs) need = std::max(need, bytes(LinearPass::kBackwardInput));
    if (needs.params) need = std::max(need, bytes(LinearPass::kBackwardWeight));
    return need;
  }

  OpFlops flops(const OpSpecs& specs) const override {
    const double product =
        2.0 * static_cast<double>(specs.inputs[0].shape.elements()) * static_cast<double>(specs.params[0][0]);
    return {product, product, product};
  }

  void forward(const Context& context, const ForwardArgs& args) const override {
    LinearForward call;
    call.x = as_matrix(args.inputs[0]);
    call.weight = as_weight(args.params[0]);
    if (has_bias_) call.bias = args.params[1];
    call.y = as_matrix(args.outputs[0]);
    if (!args.saved.empty()) call.pre = as_matrix(args.saved[0]);
    call.activation = activation_;
    linear_forward(context, call, args.workspace);
  }

  void backward(const Context& context, const BackwardArgs& args) const override {
    const Tensor dy = as_matrix(args.doutputs[0]);
    if (activation_ != Activation::kNone) {
      const Tensor kept = activation_keeps_output(activation_) ? args.outputs[0] : args.saved[0];
      activation_backward(context, activation_, as_matrix(kept), dy, dy, GradMode::kOverwrite);
    }
    const Tensor dweight = args.dparams[0], dbias = has_bias_ ? args.dparams[1] : Tensor();
    if (dweight.defined() || dbias.defined()) {
      LinearBackwardWeight call;
      call.x = as_matrix(args.inputs[0]);
      call.dy = dy;
      call.dweight = as_weight(dweight);
      call.dbias = dbias;
      call.dweight_mode = args.dparam_modes[0];
      if (has_bias_) call.dbias_mode = args.dparam_modes[1];
      linear_backward_weight(context, call, args.workspace);
    }
    if (args.dinputs[0].defined())
      linear_backward_input(context, {dy, as_weight(args.params[0]), as_matrix(args.dinputs[0]), args.dinput_modes[0]},
                            args.workspace);
  }

 private:
  Activation activation_;
  bool has_bias_, wide_output_;
};

}  // namespace

Value linear(Graph& graph, Value x, Param weight, Param bias, Activation activation, bool wide_output) {
  std::vector<Param> params{weight};
  if (bias.index >= 0) params.push_back(bias);
  return graph.apply(std::make_unique<LinearOp>(activation, bias.index >= 0, wide_output), {x}, std::move(params));
}

}  // namespace permafrost
