#include "core/graph/ops/token_cache.h"

#include "core/kernels/embedding.h"
#include "core/kernels/token_cache.h"

namespace permafrost {

namespace {

/// Operations of programs without backward.
class ForwardOnlyOp : public Op {
 public:
  std::string constants() const override { return {}; }
  BackwardUse backward_use(const Needs& needs) const override {
    if (needs.any())
      fail(ErrorKind::kInvalidArgument, kind(), ": expected a graph without backward; got one that needs gradients");
    return {};
  }
  void backward(const Context&, const BackwardArgs&) const override {
    fail(ErrorKind::kInternal, kind(), " has no backward");
  }
};

class WriteTokensOp final : public ForwardOnlyOp {
 public:
  std::string_view kind() const override { return "write_tokens"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec>, std::span<const Shape>) const override { return {}; }
  void forward(const Context& context, const ForwardArgs& args) const override {
    write_tokens(context, args.inputs[0], args.inputs[1], args.outputs[0]);
  }
};

class SelectRowsOp final : public ForwardOnlyOp {
 public:
  explicit SelectRowsOp(const TensorSpec& state) : state_(state) {}
  std::string_view kind() const override { return "select_rows"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec>, std::span<const Shape>) const override { return {}; }
  int64_t workspace_bytes(const OpSpecs&, Pass pass, const Needs&, const Workers&) const override {
    return pass == Pass::kForward ? select_rows_workspace_bytes(state_) : 0;
  }
  void forward(const Context& context, const ForwardArgs& args) const override {
    select_rows(context, args.inputs[0], args.inputs[1], args.outputs[0], args.workspace);
  }

 private:
  TensorSpec state_;
};

class GatherRowsOp final : public ForwardOnlyOp {
 public:
  std::string_view kind() const override { return "gather_rows"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    const Shape& x = inputs[0].shape;
    if (x.rank() < 1 || inputs[1].shape.rank() != 1 || inputs[1].dtype != DType::kI32)
      fail(ErrorKind::kShapeMismatch, "gather_rows: expected values (..., C) and rows (n) i32; got ", inputs[0],
           " and ", inputs[1]);
    return {{{inputs[1].shape[0], 1, x[-1]}, inputs[0].dtype}};
  }
  void forward(const Context& context, const ForwardArgs& args) const override {
    const Tensor &x = args.inputs[0], out = args.outputs[0];
    const int64_t width = x.dim(-1);
    embedding_forward(context, args.inputs[1], x.reshaped({width == 0 ? 0 : x.elements() / width, width}),
                      out.reshaped({out.dim(0), width}));
  }
};

void check_numbers(std::string_view op, std::string_view name, const TensorSpec& got, int64_t count) {
  const TensorSpec want{{count}, DType::kI32};
  if (!(got == want)) fail(ErrorKind::kShapeMismatch, op, ": ", name, " must be ", want, "; got ", got);
}

void check_cache(std::string_view op, const TensorSpec& state) {
  if (state.shape.rank() != 3) fail(ErrorKind::kShapeMismatch, op, ": the state must be (R, S, C); got ", state);
}

}  // namespace

void write_tokens(Graph& graph, Value state, Value x, Value positions) {
  const TensorSpec cache = graph.spec(state), tokens = graph.spec(x);
  check_cache("write_tokens", cache);
  if (tokens.shape.rank() != 3 || tokens.dtype != cache.dtype || tokens.shape[0] == 0 ||
      cache.shape[0] % tokens.shape[0] != 0 || tokens.shape[1] > cache.shape[1] || tokens.shape[2] != cache.shape[2])
    fail(ErrorKind::kShapeMismatch,
         "write_tokens: x must be (B, t, C) with B that divides R and t up to S for a state ", cache, "; got ", tokens);
  check_numbers("write_tokens", "positions", graph.spec(positions), tokens.shape[0]);
  graph.update_state(state, std::make_unique<WriteTokensOp>(), {x, positions});
}

void select_rows(Graph& graph, Value state, Value rows, Value lengths) {
  const TensorSpec cache = graph.spec(state);
  check_cache("select_rows", cache);
  check_numbers("select_rows", "rows", graph.spec(rows), cache.shape[0]);
  check_numbers("select_rows", "lengths", graph.spec(lengths), cache.shape[0]);
  graph.update_state(state, std::make_unique<SelectRowsOp>(cache), {rows, lengths});
}

Value gather_rows(Graph& graph, Value x, Value rows) {
  return graph.apply(std::make_unique<GatherRowsOp>(), {x, rows});
}

}  // namespace permafrost
