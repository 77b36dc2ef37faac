#include "core/graph/ops/head_loss.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "core/graph/constants.h"
#include "core/graph/ops/loss_scale.h"
#include "core/graph/ops/workspace_pieces.h"
#include "core/kernels/activation.h"
#include "core/kernels/cross_entropy.h"
#include "core/kernels/linear.h"

namespace permafrost {

namespace {

constexpr int64_t kRows = 512;  // at a time, at most: the weight is read once for all of them
constexpr int64_t kRowStep = 64;

Tensor flat(const Tensor& t) { return t.reshaped({t.elements()}); }
Tensor as_matrix(const Tensor& t, int64_t rows) { return t.defined() ? t.reshaped({rows, t.dim(-1)}) : t; }
Tensor rows_of(const Tensor& t, int64_t begin, int64_t rows) {
  if (!t.defined()) return t;
  const int64_t width = t.shape().rank() == 1 ? 1 : t.dim(1);
  auto* data = static_cast<std::byte*>(t.raw()) + begin * width * size_of(t.dtype());
  return {data, t.dtype(), t.shape().rank() == 1 ? Shape{rows} : Shape{rows, width}, t.device()};
}

/// Sizes of one use, and what of the workspace is for what.
struct Sizes {
  int64_t rows = 0, width = 0, vocabulary = 0, chunk = 0, last_chunk = 0;
  DType compute = DType::kF32;

  explicit Sizes(const OpSpecs& specs) : Sizes(specs.inputs[0].shape, specs.params[0], specs.inputs[0].dtype) {}
  Sizes(const Shape& x, const Shape& weight, DType dtype) : width(x[-1]), vocabulary(weight[0]), compute(dtype) {
    rows = width == 0 ? 0 : x.elements() / width;
    chunk = head_loss_rows(rows);
    last_chunk = chunk == 0 ? 0 : rows - (div_up(rows, chunk) - 1) * chunk;
  }
  int64_t logits_bytes() const { return WorkspacePieces::bytes({{chunk, vocabulary}, DType::kF32}); }
  /// Where the compute dtype is f32, the gradient takes the place of the logits.
  int64_t gradient_bytes() const {
    return compute == DType::kF32 ? 0 : WorkspacePieces::bytes({{chunk, vocabulary}, compute});
  }
  /// One f32 for each row of a chunk.
  int64_t row_bytes() const { return WorkspacePieces::bytes({{chunk}, DType::kF32}); }
  int64_t product_bytes(LinearPass pass, int64_t m, const Workers& workers) const {
    return linear_workspace_bytes(pass, m, vocabulary, width, compute, compute, workers.threads, workers.device);
  }
  /// Of every chunk: fewer rows may need more.
  int64_t chunk_product_bytes(LinearPass pass, const Workers& workers) const {
    return std::max(product_bytes(pass, chunk, workers), product_bytes(pass, last_chunk, workers));
  }
};

class HeadLossOp final : public Op {
 public:
  explicit HeadLossOp(float smoothing) : smoothing_(smoothing) {}
  std::string_view kind() const override { return "head_loss"; }
  std::string constants() const override { return Constants().add("smoothing", smoothing_); }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape> params) const override {
    const Shape& weight = params[0];
    if (inputs[0].shape.rank() < 1 || weight.rank() != 2 || inputs[0].shape[-1] != weight[1])
      fail(ErrorKind::kShapeMismatch, "head_loss: input must end in the K of weight (V, K) = ", weight, "; got ",
           inputs[0]);
    PERMAFROST_CHECK(smoothing_ >= 0 && smoothing_ < 1, "head_loss: smoothing must lie in [0, 1); got ", smoothing_);
    const int64_t rows = Sizes(inputs[0].shape, weight, inputs[0].dtype).rows;
    check_loss_inputs("head_loss", inputs, rows);
    return {{{rows}, DType::kF32}, {{1}, DType::kF64}};
  }

  BackwardUse backward_use(const Needs& needs) const override {
    BackwardUse use;
    if (needs.params == 0) return use;
    use.inputs = bit(0);
    if (needs.inputs != 0) use.params = bit(0);
    return use;
  }

  std::vector<TensorSpec> saved(const OpSpecs& specs, const Needs& needs) const override {
    const Sizes s(specs);
    // The lse of all rows stands behind it: that there are two says which of both is kept, also where V = K.
    if (needs.params != 0) return {{{s.rows, s.vocabulary}, s.compute}, {{s.rows}, DType::kF32}};
    if (needs.inputs != 0) return {{{s.rows, s.width}, s.compute}};
    return {};
  }

  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs& needs, const Workers& workers) const override {
    const Sizes s(specs);
    int64_t product = 0;
    if (pass == Pass::kForward) {
      product = s.chunk_product_bytes(LinearPass::kForward, workers);
      const bool keeps_dx = needs.params == 0 && needs.inputs != 0;
      if (keeps_dx) product = std::max(product, s.chunk_product_bytes(LinearPass::kBackwardInput, workers));
      const int64_t vectors = needs.any() && has_loss_scale(specs) ? 2 : 1;  // lse and scaled weights
      return kWorkspacePiece + s.logits_bytes() + vectors * s.row_bytes() + (keeps_dx ? s.gradient_bytes() : 0) +
             product;
    }
    if (needs.params == 0) return 0;
    product = s.product_bytes(LinearPass::kBackwardWeight, s.rows, workers);
    if (needs.inputs != 0) product = std::max(product, s.product_bytes(LinearPass::kBackwardInput, s.rows, workers));
    return product;
  }

  OpFlops flops(const OpSpecs& specs) const override {
    const Sizes s(specs);
    const double n = static_cast<double>(s.rows) * static_cast<double>(s.vocabulary);
    const double product = 2 * n * static_cast<double>(s.width);
    return {product + 20 * n, product + 20 * n, product};  // an exponential each
  }
  bool adds_input_gradient(size_t) const override { return false; }

  void forward(const Context& context, const ForwardArgs& args) const override {
    const Tensor& weight = args.params[0];
    const Sizes s(args.inputs[0].shape(), weight.shape(), args.inputs[0].dtype());
    const Tensor x = as_matrix(args.inputs[0], s.rows), labels = flat(args.inputs[1]), weights = flat(args.inputs[2]);
    const Tensor kept = args.saved.empty() ? Tensor() : args.saved[0];
    const bool keeps_dlogits = args.saved.size() == 2;
    WorkspacePieces pieces(args.workspace);
    const Tensor logits = pieces.take(DType::kF32, {s.chunk, s.vocabulary});
    const Tensor chunk_lse = pieces.take(DType::kF32, {s.chunk});
    Tensor gradient = logits, chunk_weights;
    if (kept.defined() && args.inputs.size() > kLossScaleInput) chunk_weights = pieces.take(DType::kF32, {s.chunk});
    if (kept.defined() && !keeps_dlogits && s.compute != DType::kF32)
      gradient = pieces.take(s.compute, {s.chunk, s.vocabulary});
    for (int64_t row = 0; row < s.rows; row += s.chunk) {
      const int64_t rows = std::min(s.chunk, s.rows - row);
      const Tensor some_logits = rows_of(logits, 0, rows), some_labels = rows_of(labels, row, rows);
      const Tensor some_lse = keeps_dlogits ? rows_of(args.saved[1], row, rows) : rows_of(chunk_lse, 0, rows);
      LinearForward product;
      product.x = rows_of(x, row, rows);
      product.weight = weight;
      product.y = some_logits;
      linear_forward(context, product, pieces.rest());
      cross_entropy_forward(context, some_logits, some_labels, smoothing_, rows_of(args.outputs[0], row, rows),
                            some_lse);
      if (!kept.defined()) continue;
      const Tensor dlogits = keeps_dlogits ? rows_of(kept, row, rows) : rows_of(gradient, 0, rows);
      const Tensor some_weights =
          scaled_row_weight(context, args.inputs, rows_of(weights, row, rows), rows_of(chunk_weights, 0, rows));
      cross_entropy_backward(context, some_logits, some_labels, some_lse, some_weights, smoothing_, dlogits);
      if (!keeps_dlogits) linear_backward_input(context, {dlogits, weight, rows_of(kept, row, rows)}, pieces.rest());
    }
    weighted_sum(context, args.outputs[0], weights, args.outputs[1]);
  }

  void backward(const Context& context, const BackwardArgs& args) const override {
    if (!args.dparams[0].defined()) {
      if (args.dinputs[0].defined())
        activation_forward(context, Activation::kNone, flat(args.saved[0]), flat(args.dinputs[0]));
      return;
    }
    const Tensor& dlogits = args.saved[0];
    LinearBackwardWeight call;
    call.x = as_matrix(args.inputs[0], dlogits.dim(0));
    call.dy = dlogits;
    call.dweight = args.dparams[0];
    call.dweight_mode = args.dparam_modes[0];
    linear_backward_weight(context, call, args.workspace);
    if (args.dinputs[0].defined())
      linear_backward_input(context, {dlogits, args.params[0], as_matrix(args.dinputs[0], dlogits.dim(0))},
                            args.workspace);
  }

 private:
  float smoothing_;
};

}  // namespace

int64_t head_loss_rows(int64_t rows) {
  const int64_t chunks = std::max<int64_t>(1, div_up(rows, kRows));
  return std::min(rows, round_up(div_up(rows, chunks), kRowStep));
}

CrossEntropyValues head_loss(Graph& graph, Value x, Param weight, Value labels, Value row_weight, float smoothing,
                             Value loss_scale) {
  const Value row_loss =
      graph.apply(std::make_unique<HeadLossOp>(smoothing), loss_inputs(x, labels, row_weight, loss_scale), {weight});
  return {row_loss, graph.output(row_loss, 1)};
}

}  // namespace permafrost
