#include "core/graph/ops/joined_linear.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/base/narrow.h"
#include "core/graph/constants.h"
#include "core/graph/ops/workspace_pieces.h"
#include "core/kernels/linear.h"
#include "core/kernels/shape_ops.h"

namespace permafrost {

namespace {

constexpr size_t kMostParts = 16;  // a weight and a bias each, in a BitMask

int64_t product_of_axes(std::span<const int64_t> axes) {
  return std::accumulate(axes.begin(), axes.end(), int64_t{1}, std::multiplies<>());
}

/// The parts as one tensor, where they lie one behind the other in memory; otherwise undefined.
Tensor in_one_piece(std::span<const Tensor> parts) {
  const Tensor& first = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const Tensor& before = parts[i - 1];
    if (parts[i].raw() != static_cast<std::byte*>(before.raw()) + before.bytes()) return {};
    if (parts[i].dtype() != first.dtype() || !(parts[i].device() == first.device())) return {};
  }
  const int64_t rows = std::ssize(parts) * first.dim(0);
  const Shape shape = first.shape().rank() == 1 ? Shape{rows} : Shape{rows, first.dim(1)};
  return {first.raw(), first.dtype(), shape, first.device()};
}

/// Sizes of one use: m rows, parts of n columns, sums of k terms.
struct JoinedSizes {
  int64_t m, n, k, parts;
  DType compute;

  JoinedSizes(const OpSpecs& specs, size_t parts)
      : m(product_of_axes(specs.inputs[0].shape.dims().first(specs.inputs[0].shape.dims().size() - 1))),
        n(specs.params[0][0]),
        k(specs.params[0][1]),
        parts(narrow<int64_t>(parts)),
        compute(specs.inputs[0].dtype) {}

  /// Of one product with all parts, or of those with one part each, whose columns stand in the workspace.
  int64_t workspace(LinearPass pass, const Workers& workers) const {
    return std::max(product(pass, parts * n, workers), column_bytes() + product(pass, n, workers));
  }
  int64_t of_a_part(LinearPass pass, const Workers& workers) const {
    return column_bytes() + product(pass, n, workers);
  }
  int64_t bias_bytes() const { return WorkspacePieces::bytes({{parts * n}, DType::kF32}); }

 private:
  int64_t column_bytes() const { return WorkspacePieces::bytes({{m, n}, compute}); }
  int64_t product(LinearPass pass, int64_t columns, const Workers& workers) const {
    return linear_workspace_bytes(pass, m, columns, k, compute, compute, workers.threads, workers.device);
  }
};

class JoinedLinearOp final : public Op {
 public:
  JoinedLinearOp(size_t parts, bool has_bias) : parts_(parts), has_bias_(has_bias) {}

  std::string_view kind() const override { return "joined_linear"; }
  std::string constants() const override {
    return Constants().add("parts", narrow<int64_t>(parts_)).add("bias", has_bias_);
  }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape> params) const override {
    const TensorSpec& x = inputs[0];
    const Shape& weight = params[0];
    if (weight.rank() != 2 || x.shape.rank() < 1 || x.shape[-1] != weight[1])
      fail(ErrorKind::kShapeMismatch, "joined_linear: input must end in the K of weights (N, K) = ", weight, "; got ",
           x);
    for (size_t i = 0; i < params.size(); ++i) {
      const Shape want = i < parts_ ? weight : Shape{weight[0]};
      if (!(params[i] == want))
        fail(ErrorKind::kShapeMismatch, "joined_linear: ", i < parts_ ? "weight " : "bias ", i % parts_, " must be ",
             want, "; got ", params[i]);
    }
    std::vector<int64_t> dims(x.shape.dims().begin(), x.shape.dims().end());
    dims.back() = narrow<int64_t>(parts_) * weight[0];
    return {{Shape(dims), x.dtype}};
  }

  BackwardUse backward_use(const Needs& needs) const override {
    BackwardUse use;
    if (needs.params & all_weights()) use.inputs = bit(0);
    if (needs.inputs) use.params = all_weights();
    return use;
  }

  BitMask wants_compute_dtype() const override { return has_bias_ ? all_weights() << parts_ : 0; }

  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs& needs, const Workers& workers) const override {
    const JoinedSizes s(specs, parts_);
    if (pass == Pass::kForward)
      return kWorkspacePiece + (has_bias_ ? s.bias_bytes() : 0) + s.workspace(LinearPass::kForward, workers);
    int64_t need = 0;
    if (needs.inputs) need = s.workspace(LinearPass::kBackwardInput, workers);
    if (needs.params) need = std::max(need, s.of_a_part(LinearPass::kBackwardWeight, workers));
    return kWorkspacePiece + need;
  }

  OpFlops flops(const OpSpecs& specs) const override {
    const JoinedSizes s(specs, parts_);
    const double product = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.k) * static_cast<double>(s.n) *
                           static_cast<double>(s.parts);
    return {product, product, product, all_weights()};
  }

  /// Errors: InvalidArgument (weights that the plan puts one behind the other lie elsewhere).
  void forward(const Context& context, const ForwardArgs& args) const override {
    const Tensor y = rows_of_parts(args.outputs[0]);
    const int64_t m = y.dim(0), n = y.dim(2);
    const std::span<const Tensor> weights = args.params.first(parts_), biases = args.params.subspan(parts_);
    WorkspacePieces pieces(args.workspace);
    LinearForward call;
    call.x = args.inputs[0].reshaped({m, weights[0].dim(1)});
    call.weight = joined(weights, args.adjoining);
    if (call.weight.defined()) {
      if (has_bias_) call.bias = one_bias(context, biases, pieces);
      call.y = y.reshaped({m, y.dim(1) * n});
      return linear_forward(context, call, pieces.rest());
    }
    call.y = pieces.take(y.dtype(), {m, n});
    for (size_t i = 0; i < parts_; ++i) {
      call.weight = weights[i];
      if (has_bias_) call.bias = biases[i];
      linear_forward(context, call, pieces.rest());
      overwrite_token(context, y, call.y, narrow<int64_t>(i), y);
    }
  }

  void backward(const Context& context, const BackwardArgs& args) const override {
    const Tensor dy = rows_of_parts(args.doutputs[0]);
    const int64_t m = dy.dim(0), n = dy.dim(2);
    WorkspacePieces pieces(args.workspace);
    LinearBackwardInput dx;
    const bool wants_dx = args.dinputs[0].defined();
    if (wants_dx) {
      dx.dx = args.dinputs[0].reshaped({m, args.params[0].dim(1)});
      dx.mode = args.dinput_modes[0];
      dx.weight = joined(args.params.first(parts_), args.adjoining);
    }
    const bool by_parts = wants_dx && !dx.weight.defined();
    if (wants_dx && !by_parts) {
      dx.dy = dy.reshaped({m, dy.dim(1) * n});
      linear_backward_input(context, dx, pieces.rest());
    }
    if (!by_parts && std::ranges::none_of(args.dparams, &Tensor::defined)) return;
    const Tensor columns = pieces.take(dy.dtype(), {m, n});
    for (size_t i = 0; i < parts_; ++i) {
      const bool wants_parameters = args.dparams[i].defined() || (has_bias_ && args.dparams[parts_ + i].defined());
      if (!by_parts && !wants_parameters) continue;
      slice_tokens(context, dy, narrow<int64_t>(i), columns.reshaped({m, 1, n}));
      if (wants_parameters) backward_of_parameters(context, args, i, columns, pieces.rest());
      if (!by_parts) continue;
      linear_backward_input(context, {columns, args.params[i], dx.dx, dx.mode}, pieces.rest());
      dx.mode = GradMode::kAdd;
    }
  }

 private:
  BitMask all_weights() const { return bit(parts_) - 1; }

  /// The weights as one tensor where the plan puts them one behind the other; otherwise undefined, wherever they lie.
  Tensor joined(std::span<const Tensor> weights, BitMask adjoining) const {
    const BitMask behind = all_weights() & ~bit(0);
    if ((adjoining & behind) != behind) return {};
    const Tensor whole = in_one_piece(weights);
    PERMAFROST_CHECK(whole.defined(), "joined_linear: ", parts_, " weights of ", weights[0].spec(),
                     " were expected one behind the other, as the plan puts them; got them apart");
    return whole;
  }

  /// (..., n N) as (M, n, N).
  Tensor rows_of_parts(const Tensor& t) const {
    const auto dims = t.shape().dims();
    const auto parts = narrow<int64_t>(parts_);
    return t.reshaped({product_of_axes(dims.first(dims.size() - 1)), parts, dims.back() / parts});
  }

  /// Biases that do not lie together are put together, the same values either way: whether there is one product must
  /// not depend on them, since a GPU reads copies of frozen ones, which have places of their own, where their unit is
  /// at rest and not in a slot.
  static Tensor one_bias(const Context& context, std::span<const Tensor> biases, WorkspacePieces& pieces) {
    if (const Tensor whole = in_one_piece(biases)) return whole;
    const int64_t n = biases[0].dim(0);
    const Tensor whole = pieces.take(DType::kF32, {std::ssize(biases) * n});
    for (int64_t i = 0; i < std::ssize(biases); ++i)
      accumulate(context, biases[static_cast<size_t>(i)], whole.rows(i * n, (i + 1) * n), GradMode::kOverwrite);
    return whole;
  }

  void backward_of_parameters(const Context& context, const BackwardArgs& args, size_t part, const Tensor& dy,
                              const Tensor& workspace) const {
    LinearBackwardWeight call;
    call.dy = dy;
    call.dweight = args.dparams[part];
    call.dweight_mode = args.dparam_modes[part];
    if (call.dweight.defined()) call.x = args.inputs[0].reshaped({dy.dim(0), call.dweight.dim(1)});
    if (has_bias_) {
      call.dbias = args.dparams[parts_ + part];
      call.dbias_mode = args.dparam_modes[parts_ + part];
    }
    linear_backward_weight(context, call, workspace);
  }

  size_t parts_;
  bool has_bias_;
};

}  // namespace

Value joined_linear(Graph& graph, Value x, const std::vector<Param>& weights, const std::vector<Param>& biases) {
  PERMAFROST_CHECK(!weights.empty() && weights.size() <= kMostParts, "joined_linear: expected 1 to ", kMostParts,
                   " weights; got ", weights.size());
  PERMAFROST_CHECK(biases.empty() || biases.size() == weights.size(), "joined_linear: expected a bias for each of ",
                   weights.size(), " weights, or none; got ", biases.size());
  std::vector<Param> params = weights;
  params.insert(params.end(), biases.begin(), biases.end());
  return graph.apply(std::make_unique<JoinedLinearOp>(weights.size(), !biases.empty()), {x}, std::move(params));
}

}  // namespace permafrost
