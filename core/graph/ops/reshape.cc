#include "core/graph/ops/reshape.h"

#include "core/kernels/shape_ops.h"

namespace permafrost {

namespace {

class ReshapeOp final : public Op {
 public:
  explicit ReshapeOp(const Shape& shape) : shape_(shape) {}
  std::string_view kind() const override { return "reshape"; }
  std::string constants() const override { return {}; }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    if (inputs[0].shape.elements() != shape_.elements())
      fail(ErrorKind::kShapeMismatch, "reshape: input must have the ", shape_.elements(), " elements of ", shape_,
           "; got ", inputs[0]);
    return {{shape_, inputs[0].dtype}};
  }
  BackwardUse backward_use(const Needs&) const override { return {}; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    accumulate(context, args.inputs[0].reshaped(shape_), args.outputs[0], GradMode::kOverwrite);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    const Tensor dx = args.dinputs[0];
    if (dx.defined()) accumulate(context, args.doutputs[0].reshaped(dx.shape()), dx, args.dinput_modes[0]);
  }

 private:
  Shape shape_;
};

}  // namespace

Value reshape(Graph& graph, Value x, const Shape& shape) {
  return graph.apply(std::make_unique<ReshapeOp>(shape), {x});
}

}  // namespace permafrost
