#include "core/graph/ops/dropout.h"

#include "core/graph/constants.h"
#include "core/kernels/dropout.h"

namespace permafrost {

namespace {

class DropoutOp final : public Op {
 public:
  DropoutOp(uint32_t layer, float p) : layer_(layer), p_(p) {}
  std::string_view kind() const override { return "dropout"; }
  std::string constants() const override { return Constants().add("layer", layer_).add("p", p_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    const Shape& x = inputs[0].shape;
    if (!is_activation_dtype(inputs[0].dtype))
      fail(ErrorKind::kShapeMismatch, "dropout: input must be f32, bf16 or f16; got ", inputs[0]);
    PERMAFROST_CHECK(p_ >= 0 && p_ < 1, "dropout: p must lie in [0, 1); got ", p_);
    if (x.rank() < 1 || !(inputs[1] == TensorSpec{{2 + x[0]}, DType::kI64}))
      fail(ErrorKind::kShapeMismatch, "dropout: address must be (2 + B) i64 for input (B, ...) ", inputs[0], "; got ",
           inputs[1]);
    return {inputs[0]};
  }
  BackwardUse backward_use(const Needs&) const override {
    BackwardUse use;
    use.inputs = bit(1);
    return use;
  }
  OpFlops flops(const OpSpecs& specs) const override {
    const double n = static_cast<double>(specs.inputs[0].shape.elements());
    return {n, n, 0};
  }
  std::optional<size_t> in_place_input() const override { return 0; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    dropout(context, args.inputs[0], args.inputs[1], layer_, p_, args.outputs[0], GradMode::kOverwrite);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dinputs[0].defined())
      dropout(context, args.doutputs[0], args.inputs[1], layer_, p_, args.dinputs[0], args.dinput_modes[0]);
  }

 private:
  uint32_t layer_;
  float p_;
};

}  // namespace

Value dropout(Graph& graph, Value x, Value address, uint32_t layer, float p) {
  if (p == 0) return x;
  return graph.apply(std::make_unique<DropoutOp>(layer, p), {x, address});
}

}  // namespace permafrost
