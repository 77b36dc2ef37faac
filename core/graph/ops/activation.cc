#include "core/graph/ops/activation.h"

#include "core/graph/constants.h"
#include "core/kernels/activation.h"

namespace permafrost {

namespace {

class ActivationOp final : public Op {
 public:
  explicit ActivationOp(Activation kind) : kind_(kind) {}
  std::string_view kind() const override { return "activation"; }
  std::string constants() const override { return Constants().add("activation", kind_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    if (!is_activation_dtype(inputs[0].dtype))
      fail(ErrorKind::kShapeMismatch, "activation: input must be f32, bf16 or f16; got ", inputs[0]);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs&) const override {
    BackwardUse use;
    (activation_keeps_output(kind_) ? use.outputs : use.inputs) = bit(0);
    return use;
  }
  OpFlops flops(const OpSpecs& specs) const override {
    const bool rectifier = kind_ == Activation::kRelu || kind_ == Activation::kSquaredRelu;
    const double n = static_cast<double>(specs.inputs[0].shape.elements()),
                 each = rectifier ? 2 : 20;  // a polynomial or two
    return {each * n, each * n, 0};
  }
  std::optional<size_t> in_place_input() const override { return 0; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    activation_forward(context, kind_, args.inputs[0], args.outputs[0]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (!args.dinputs[0].defined()) return;
    const Tensor kept = activation_keeps_output(kind_) ? args.outputs[0] : args.inputs[0];
    activation_backward(context, kind_, kept, args.doutputs[0], args.dinputs[0], args.dinput_modes[0]);
  }

 private:
  Activation kind_;
};

}  // namespace

Value activation(Graph& graph, Value x, Activation kind) {
  if (kind == Activation::kNone) return x;
  return graph.apply(std::make_unique<ActivationOp>(kind), {x});
}

}  // namespace permafrost
