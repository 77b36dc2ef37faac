#include "core/graph/ops/cross_entropy.h"

#include "core/graph/constants.h"
#include "core/kernels/cross_entropy.h"

namespace permafrost {

namespace {

class CrossEntropyOp final : public Op {
 public:
  explicit CrossEntropyOp(float smoothing) : smoothing_(smoothing) {}
  std::string_view kind() const override { return "cross_entropy"; }
  std::string constants() const override { return Constants().add("smoothing", smoothing_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    if (inputs[0].shape.rank() < 1 || (inputs[0].dtype != DType::kF32 && inputs[0].dtype != DType::kBF16))
      fail(ErrorKind::kShapeMismatch, "cross_entropy: logits must be (..., V) f32 or bf16; got ", inputs[0]);
    PERMAFROST_CHECK(smoothing_ >= 0 && smoothing_ < 1, "cross_entropy: smoothing must lie in [0, 1); got ",
                     smoothing_);
    const int64_t rows = rows_of(inputs[0].shape);
    if (inputs[1].shape.elements() != rows || inputs[1].dtype != DType::kI32)
      fail(ErrorKind::kShapeMismatch, "cross_entropy: labels must be ", rows, " elements of i32; got ", inputs[1]);
    if (inputs[2].shape.elements() != rows || inputs[2].dtype != DType::kF32)
      fail(ErrorKind::kShapeMismatch, "cross_entropy: row_weight must be ", rows, " elements of f32; got ", inputs[2]);
    return {{{rows}, DType::kF32}, {{1}, DType::kF64}};
  }
  BackwardUse backward_use(const Needs&) const override {
    BackwardUse use;
    use.inputs = bit(0) | bit(1) | bit(2);
    return use;
  }
  std::vector<TensorSpec> saved(const OpSpecs& specs, const Needs&) const override {
    return {specs.outputs[0]};  // log-sum-exp of each row
  }
  OpFlops flops(const OpSpecs& specs) const override {
    const double n = static_cast<double>(specs.inputs[0].shape.elements());
    return {20 * n, 20 * n, 0};  // an exponential each
  }
  bool adds_input_gradient(size_t) const override { return false; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    const Tensor lse = args.saved.empty() ? Tensor() : args.saved[0];
    cross_entropy_forward(context, as_rows(args.inputs[0]), flat(args.inputs[1]), smoothing_, args.outputs[0], lse);
    weighted_sum(context, args.outputs[0], flat(args.inputs[2]), args.outputs[1]);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (!args.dinputs[0].defined()) return;
    cross_entropy_backward(context, as_rows(args.inputs[0]), flat(args.inputs[1]), args.saved[0], flat(args.inputs[2]),
                           smoothing_, as_rows(args.dinputs[0]));
  }

 private:
  static int64_t rows_of(const Shape& shape) { return shape[-1] == 0 ? 0 : shape.elements() / shape[-1]; }
  static Tensor as_rows(const Tensor& t) { return t.reshaped({rows_of(t.shape()), t.dim(-1)}); }
  static Tensor flat(const Tensor& t) { return t.reshaped({t.elements()}); }

  float smoothing_;
};

}  // namespace

CrossEntropyValues cross_entropy(Graph& graph, Value logits, Value labels, Value row_weight, float smoothing) {
  const Value row_loss = graph.apply(std::make_unique<CrossEntropyOp>(smoothing), {logits, labels, row_weight});
  return {row_loss, graph.output(row_loss, 1)};
}

}  // namespace permafrost
