#include "core/graph/ops/cross_entropy.h"

#include "core/graph/constants.h"
#include "core/graph/ops/loss_scale.h"
#include "core/kernels/cross_entropy.h"

namespace permafrost {

namespace {

class CrossEntropyOp final : public Op {
 public:
  explicit CrossEntropyOp(float smoothing) : smoothing_(smoothing) {}
  std::string_view kind() const override { return "cross_entropy"; }
  std::string constants() const override { return Constants().add("smoothing", smoothing_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    if (inputs[0].shape.rank() < 1 || !is_activation_dtype(inputs[0].dtype))
      fail(ErrorKind::kShapeMismatch, "cross_entropy: logits must be (..., V) f32, bf16 or f16; got ", inputs[0]);
    PERMAFROST_CHECK(smoothing_ >= 0 && smoothing_ < 1, "cross_entropy: smoothing must lie in [0, 1); got ",
                     smoothing_);
    const int64_t rows = rows_of(inputs[0].shape);
    check_loss_inputs("cross_entropy", inputs, rows);
    return {{{rows}, DType::kF32}, {{1}, DType::kF64}};
  }
  BackwardUse backward_use(const Needs&) const override {
    BackwardUse use;
    use.inputs = bit(0) | bit(1) | bit(2) | bit(kLossScaleInput);
    return use;
  }
  std::vector<TensorSpec> saved(const OpSpecs& specs, const Needs&) const override {
    return {specs.outputs[0]};  // log-sum-exp of each row
  }
  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs& needs, const Workers&) const override {
    if (pass == Pass::kForward || !needs.any() || !has_loss_scale(specs)) return 0;
    return specs.outputs[0].bytes() + kPlace - 1;  // weights of rows
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
    const Tensor row_weight = flat(args.inputs[2]);
    Tensor place;
    if (args.workspace.bytes() > 0) {
      const auto address = reinterpret_cast<uintptr_t>(args.workspace.raw());
      place = {reinterpret_cast<std::byte*>((address + kPlace - 1) / kPlace * kPlace), row_weight.spec(),
               args.workspace.device()};
    }
    cross_entropy_backward(context, as_rows(args.inputs[0]), flat(args.inputs[1]), args.saved[0],
                           scaled_row_weight(context, args.inputs, row_weight, place), smoothing_,
                           as_rows(args.dinputs[0]));
  }

 private:
  static constexpr uintptr_t kPlace = 64;
  static int64_t rows_of(const Shape& shape) { return shape[-1] == 0 ? 0 : shape.elements() / shape[-1]; }
  static Tensor as_rows(const Tensor& t) { return t.reshaped({rows_of(t.shape()), t.dim(-1)}); }
  static Tensor flat(const Tensor& t) { return t.reshaped({t.elements()}); }

  float smoothing_;
};

}  // namespace

CrossEntropyValues cross_entropy(Graph& graph, Value logits, Value labels, Value row_weight, float smoothing,
                                 Value loss_scale) {
  const Value row_loss =
      graph.apply(std::make_unique<CrossEntropyOp>(smoothing), loss_inputs(logits, labels, row_weight, loss_scale));
  return {row_loss, graph.output(row_loss, 1)};
}

}  // namespace permafrost
