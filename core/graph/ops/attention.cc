#include "core/graph/ops/attention.h"

#include "core/graph/constants.h"
namespace permafrost {

namespace {

/// What both attentions have in common: the mask, and sizes from specs. The mask's values follow `operands` inputs.
class AttentionOpBase : public Op {
 public:
  AttentionOpBase(const AttentionConfig& config, size_t operands) : config_(config), operands_(operands) {
    size_t next = operands;
    const auto take = [&](Value value) { return value.index >= 0 ? next++ : 0; };
    lengths_ = take(config.lengths);
    allowed_ = take(config.allowed);
    open_lengths_ = take(config.open_lengths);
  }

  std::string constants() const override {
    return Constants()
        .add("heads", config_.heads)
        .add("scale", config_.scale)
        .add("mask", config_.mask)
        .add("lengths", lengths_)
        .add("allowed", allowed_)
        .add("open_lengths", open_lengths_);
  }
  BackwardUse backward_use(const Needs&) const override {
    BackwardUse use;
    use.inputs = (BitMask{1} << (operands_ + (lengths_ > 0) + (allowed_ > 0) + (open_lengths_ > 0))) - 1;
    use.outputs = bit(0);
    return use;
  }
  std::vector<TensorSpec> saved(const OpSpecs& specs, const Needs&) const override {
    const Shape& out = specs.outputs[0].shape;
    return {{{out[0], config_.heads, out[1]}, DType::kF32}};
  }
  int64_t workspace_bytes(const OpSpecs& specs, Pass pass, const Needs&, const Workers& workers) const override {
    const Shape& out = specs.outputs[0].shape;
    return attention_workspace_bytes(pass == Pass::kBackward, out[0], out[1], keys_of(specs), config_.heads,
                                     out[2] / config_.heads, specs.inputs[0].dtype, workers.threads, workers.device);
  }
  OpFlops flops(const OpSpecs& specs) const override {
    // Scores and mixing; backward makes the scores again and four products more. All keys are counted, hidden or not.
    const double product =
        2.0 * static_cast<double>(specs.outputs[0].shape.elements()) * static_cast<double>(keys_of(specs));
    return {2 * product, 5 * product, 0};
  }
  bool adds_input_gradient(size_t) const override { return false; }

 protected:
  virtual int64_t keys_of(const OpSpecs& specs) const = 0;

  void check_heads(const TensorSpec& x, int64_t width) const {
    if (config_.heads < 1 || width % config_.heads != 0)
      fail(ErrorKind::kShapeMismatch, kind(), ": width must be a multiple of heads = ", config_.heads, "; got ", width,
           " of ", x);
  }
  void check_mask(std::span<const TensorSpec> inputs, int64_t batch, int64_t queries, int64_t keys) const {
    const auto check = [&](std::string_view name, size_t position, const TensorSpec& want) {
      if (position && !(inputs[position] == want))
        fail(ErrorKind::kShapeMismatch, kind(), ": ", name, " must be ", want, "; got ", inputs[position]);
    };
    check("lengths", lengths_, {{batch}, DType::kI32});
    check("allowed", allowed_, {{batch, queries, keys}, DType::kU8});
    check("open_lengths", open_lengths_, {{batch}, DType::kI32});
    const bool causal = config_.mask == MaskKind::kCausal || config_.mask == MaskKind::kCausalOpenFirst;
    if (causal && queries != keys)
      fail(ErrorKind::kShapeMismatch, kind(), ": a causal mask must have as many queries as keys; got T=", queries,
           " S=", keys);
    PERMAFROST_CHECK((allowed_ > 0) == (config_.mask == MaskKind::kExplicit), kind(),
                     ": allowed must be given with an explicit mask and with no other; got ",
                     allowed_ ? "it with another" : "none");
    PERMAFROST_CHECK(!open_lengths_ || config_.mask == MaskKind::kCausalOpenFirst, kind(),
                     ": open_lengths must come with an open first row alone; got them with another mask");
  }
  AttentionMask mask(std::span<const Tensor> inputs) const {
    AttentionMask result;
    result.kind = config_.mask;
    if (lengths_) result.lengths = inputs[lengths_];
    if (allowed_) result.allowed = inputs[allowed_];
    if (open_lengths_) result.open_lengths = inputs[open_lengths_];
    return result;
  }
  /// (B, T, C) as (B, T, H, D).
  Tensor heads(const Tensor& t) const {
    if (!t.defined()) return t;
    return t.reshaped({t.dim(0), t.dim(1), config_.heads, t.dim(2) / config_.heads});
  }

  AttentionConfig config_;

 private:
  size_t operands_, lengths_ = 0, allowed_ = 0, open_lengths_ = 0;  // positions among the inputs; 0 = not given
};

class FusedAttentionOp final : public AttentionOpBase {
 public:
  explicit FusedAttentionOp(const AttentionConfig& config) : AttentionOpBase(config, 1) {}
  std::string_view kind() const override { return "attention_fused"; }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    const TensorSpec& qkv = inputs[0];
    if (qkv.shape.rank() != 3 || qkv.shape[2] % 3 != 0)
      fail(ErrorKind::kShapeMismatch, "attention_fused: qkv must be (B, T, 3 C); got ", qkv);
    check_heads(qkv, qkv.shape[2] / 3);
    check_mask(inputs, qkv.shape[0], qkv.shape[1], qkv.shape[1]);
    return {{{qkv.shape[0], qkv.shape[1], qkv.shape[2] / 3}, qkv.dtype}};
  }

  void forward(const Context& context, const ForwardArgs& args) const override {
    AttentionForward call;
    call.q = part(args.inputs[0], 0);
    call.k = part(args.inputs[0], 1);
    call.v = part(args.inputs[0], 2);
    call.out = heads(args.outputs[0]);
    if (!args.saved.empty()) call.lse = args.saved[0];
    call.stride_q = call.stride_k = call.stride_v = args.inputs[0].dim(2);
    call.scale = config_.scale;
    call.mask = mask(args.inputs);
    attention_forward(context, call, args.workspace);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    if (!args.dinputs[0].defined()) return;
    AttentionBackward call;
    call.q = part(args.inputs[0], 0);
    call.k = part(args.inputs[0], 1);
    call.v = part(args.inputs[0], 2);
    call.out = heads(args.outputs[0]);
    call.lse = args.saved[0];
    call.dout = heads(args.doutputs[0]);
    call.dq = part(args.dinputs[0], 0);
    call.dk = part(args.dinputs[0], 1);
    call.dv = part(args.dinputs[0], 2);
    call.stride_q = call.stride_k = call.stride_v = args.inputs[0].dim(2);
    call.scale = config_.scale;
    call.mask = mask(args.inputs);
    attention_backward(context, call, args.workspace);
  }

 protected:
  int64_t keys_of(const OpSpecs& specs) const override { return specs.inputs[0].shape[1]; }

 private:
  /// q, k or v of a fused product: a view that begins at its columns and is walked with the stride of whole rows.
  Tensor part(const Tensor& fused, int64_t index) const {
    const int64_t width = fused.dim(2) / 3;
    return {static_cast<std::byte*>(fused.raw()) + index * width * size_of(fused.dtype()),
            fused.dtype(),
            {fused.dim(0), fused.dim(1), config_.heads, width / config_.heads},
            fused.device()};
  }
};

class AttentionOp final : public AttentionOpBase {
 public:
  explicit AttentionOp(const AttentionConfig& config) : AttentionOpBase(config, 3) {}
  std::string_view kind() const override { return "attention"; }

  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs, std::span<const Shape>) const override {
    const TensorSpec &q = inputs[0], &k = inputs[1], &v = inputs[2];
    if (q.shape.rank() != 3) fail(ErrorKind::kShapeMismatch, "attention: q must be (B, T, C); got ", q);
    if (!(k == v) || k.dtype != q.dtype || k.shape.rank() != 3 || k.shape[0] != q.shape[0] || k.shape[2] != q.shape[2])
      fail(ErrorKind::kShapeMismatch, "attention: k and v must be (B, S, C) for q ", q, "; got ", k, " and ", v);
    check_heads(q, q.shape[2]);
    check_mask(inputs, q.shape[0], q.shape[1], k.shape[1]);
    return {q};
  }

  void forward(const Context& context, const ForwardArgs& args) const override {
    AttentionForward call;
    call.q = heads(args.inputs[0]);
    call.k = heads(args.inputs[1]);
    call.v = heads(args.inputs[2]);
    call.out = heads(args.outputs[0]);
    if (!args.saved.empty()) call.lse = args.saved[0];
    call.scale = config_.scale;
    call.mask = mask(args.inputs);
    attention_forward(context, call, args.workspace);
  }
  void backward(const Context& context, const BackwardArgs& args) const override {
    AttentionBackward call;
    call.q = heads(args.inputs[0]);
    call.k = heads(args.inputs[1]);
    call.v = heads(args.inputs[2]);
    call.out = heads(args.outputs[0]);
    call.lse = args.saved[0];
    call.dout = heads(args.doutputs[0]);
    call.dq = heads(args.dinputs[0]);
    call.dk = heads(args.dinputs[1]);
    call.dv = heads(args.dinputs[2]);
    call.scale = config_.scale;
    call.mask = mask(args.inputs);
    attention_backward(context, call, args.workspace);
  }

 protected:
  int64_t keys_of(const OpSpecs& specs) const override { return specs.inputs[1].shape[1]; }
};

std::vector<Value> with_mask(std::vector<Value> inputs, const AttentionConfig& config) {
  for (Value value : {config.lengths, config.allowed, config.open_lengths})
    if (value.index >= 0) inputs.push_back(value);
  return inputs;
}

}  // namespace

Value attention_fused(Graph& graph, Value qkv, const AttentionConfig& config) {
  return graph.apply(std::make_unique<FusedAttentionOp>(config), with_mask({qkv}, config));
}

Value attention(Graph& graph, Value q, Value k, Value v, const AttentionConfig& config) {
  return graph.apply(std::make_unique<AttentionOp>(config), with_mask({q, k, v}, config));
}

}  // namespace permafrost
