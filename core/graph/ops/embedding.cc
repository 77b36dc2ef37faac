#include "core/graph/ops/embedding.h"

#include "core/kernels/embedding.h"

namespace permafrost {

namespace {

class EmbeddingOp final : public Op {
 public:
  explicit EmbeddingOp(DType compute) : compute_(compute) {}
  std::string_view kind() const override { return "embedding"; }
  std::string constants() const override { return {}; }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape> params) const override {
    if (inputs[0].dtype != DType::kI32 || inputs[0].shape.rank() >= Shape::kMaxRank)
      fail(ErrorKind::kShapeMismatch, "embedding: ids must be (...) i32; got ", inputs[0]);
    if (params[0].rank() != 2) fail(ErrorKind::kShapeMismatch, "embedding: table must be (V, C); got ", params[0]);
    std::vector<int64_t> dims(inputs[0].shape.dims().begin(), inputs[0].shape.dims().end());
    dims.push_back(params[0][1]);
    return {{Shape(dims), compute_}};
  }
  BackwardUse backward_use(const Needs& needs) const override {
    BackwardUse use;
    if (needs.params) use.inputs = bit(0);
    return use;
  }

  OpFlops flops(const OpSpecs& specs) const override {
    return {0, 0, static_cast<double>(specs.outputs[0].shape.elements())};
  }

  void forward(const Context& context, const ForwardArgs& args) const override {
    embedding_forward(context, flat(args.inputs[0]), args.params[0], rows(args.outputs[0]));
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (args.dparams[0].defined())
      embedding_backward(context, flat(args.inputs[0]), rows(args.doutputs[0]), args.dparams[0], args.dparam_modes[0]);
  }

 private:
  static Tensor flat(const Tensor& t) { return t.reshaped({t.elements()}); }
  static Tensor rows(const Tensor& t) { return t.reshaped({t.dim(-1) == 0 ? 0 : t.elements() / t.dim(-1), t.dim(-1)}); }

  DType compute_;
};

}  // namespace

Value embedding(Graph& graph, Value ids, Param table) {
  return graph.apply(std::make_unique<EmbeddingOp>(graph.compute()), {ids}, {table});
}

}  // namespace permafrost
