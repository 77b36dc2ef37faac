#include "core/kernels/cudnn/attention_graphs.h"

#include <limits>

#include "core/base/check.h"

namespace permafrost::cuda::cudnn {

namespace {

using Tensor = Graph::Tensor;

/// Builds one graph. Layouts are (batch, head, token, element), as cuDNN wants them; tensors are (batch, token, head,
/// element).
class Builder {
 public:
  explicit Builder(const AttentionKey& key)
      : key_(key), type_(key.dtype == DType::kBF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF) {}

  Graph take() { return std::move(graph_); }

  void forward() {
    const Tensor q = heads("q", key_.queries, key_.stride_q), k = transposed("k", key_.keys, key_.stride_k),
                 v = heads("v", key_.keys, key_.stride_v), out = heads("out", key_.queries, own_stride()),
                 lse = graph_.memory("lse", of_rows(), CUDNN_DATA_FLOAT);
    add_lengths();
    const Tensor masked = causal(padded(scores(q, k)));
    const Tensor largest = rows("largest"), sum = rows("sum"), logarithm = rows("logarithm");
    graph_.reduce(CUDNN_REDUCE_TENSOR_MAX, masked, largest);
    const Tensor exponential =
        scores_of({.mode = CUDNN_POINTWISE_EXP,
                   .x = scores_of({.mode = CUDNN_POINTWISE_SUB, .x = masked, .b = largest}, "difference")},
                  "exponential");
    graph_.reduce(CUDNN_REDUCE_TENSOR_ADD, exponential, sum);
    graph_.pointwise({.mode = CUDNN_POINTWISE_LOG, .x = sum}, logarithm);
    graph_.pointwise({.mode = CUDNN_POINTWISE_ADD, .x = largest, .b = logarithm}, lse);
    const Tensor p = scores_of({.mode = CUDNN_POINTWISE_DIV, .x = exponential, .b = sum}, "p", type_);
    graph_.matmul(p, v, out, {.m = queries_, .k = keys_});
  }

  void backward() {
    const Tensor q = heads("q", key_.queries, key_.stride_q), k = transposed("k", key_.keys, key_.stride_k),
                 v = transposed("v", key_.keys, key_.stride_v), out = heads("out", key_.queries, own_stride()),
                 dout = heads("dout", key_.queries, own_stride()),
                 lse = graph_.memory("lse", of_rows(), CUDNN_DATA_FLOAT), dq = heads("dq", key_.queries, key_.stride_q),
                 dk = heads("dk", key_.keys, key_.stride_k), dv = heads("dv", key_.keys, key_.stride_v),
                 delta = graph_.memory("delta", of_rows(), CUDNN_DATA_FLOAT);
    add_lengths();
    row_sums(out, dout, delta);
    // p = exp(scores - lse); dv = p^T dout.
    const Tensor difference =
        scores_of({.mode = CUDNN_POINTWISE_SUB, .x = padded(scores(q, k)), .b = lse}, "difference");
    const Tensor p = scores_of({.mode = CUDNN_POINTWISE_EXP, .x = causal(difference)}, "p");
    graph_.matmul(turned(p, "p transposed"), dout, dv, {.m = keys_, .k = queries_});
    // ds = scale p (dout v^T - delta); dk = ds^T q; dq = ds k.
    const Tensor dp = graph_.between("dp", of_scores(), CUDNN_DATA_FLOAT);
    graph_.matmul(dout, v, dp, {.m = queries_, .n = keys_});
    const Tensor centred = scores_of({.mode = CUDNN_POINTWISE_SUB, .x = dp, .b = delta}, "dp - delta");
    const Tensor unscaled = scores_of({.mode = CUDNN_POINTWISE_MUL, .x = centred, .b = p}, "unscaled ds");
    const Tensor ds = scores_of({.mode = CUDNN_POINTWISE_MUL, .x = unscaled, .b = scale_}, "ds");
    graph_.matmul(turned(ds, "ds transposed"), q, dk, {.m = keys_, .k = queries_});
    const Tensor rows_of_k = graph_.between("k by rows", in_memory(key_.keys, key_.stride_k), type_);
    graph_.reshape(k, rows_of_k);
    graph_.matmul(ds, rows_of_k, dq, {.m = queries_, .k = keys_});
  }

 private:
  int64_t own_stride() const { return key_.heads * key_.head_size; }
  Layout in_memory(int64_t tokens, int64_t stride) const {
    return {{key_.batch, key_.heads, tokens, key_.head_size}, {tokens * stride, key_.head_size, stride, 1}};
  }
  Layout of_scores() const {
    const int64_t t = key_.queries, s = key_.keys;
    return {{key_.batch, key_.heads, t, s}, {key_.heads * t * s, t * s, s, 1}};
  }
  /// One number per query and head.
  Layout of_rows() const {
    const int64_t t = key_.queries;
    return {{key_.batch, key_.heads, t, 1}, {key_.heads * t, t, 1, 1}};
  }
  Tensor heads(std::string name, int64_t tokens, int64_t stride) {
    return graph_.memory(std::move(name), in_memory(tokens, stride), type_);
  }
  Tensor transposed(std::string name, int64_t tokens, int64_t stride) {
    Layout layout = in_memory(tokens, stride);
    std::swap(layout.dims[2], layout.dims[3]);
    std::swap(layout.strides[2], layout.strides[3]);
    return graph_.memory(std::move(name), layout, type_);
  }
  Tensor rows(std::string name) { return graph_.between(std::move(name), of_rows(), CUDNN_DATA_FLOAT); }
  Tensor scores_of(const Graph::Pointwise& operation, std::string name, cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    const Tensor y = graph_.between(std::move(name), of_scores(), type);
    graph_.pointwise(operation, y);
    return y;
  }

  void add_lengths() {
    if (!key_.lengths) return;
    const Layout layout{{key_.batch, 1, 1, 1}, {1, 1, 1, 1}};
    queries_ = graph_.memory("lengths of queries", layout, CUDNN_DATA_INT32);
    keys_ = graph_.memory("lengths of keys", layout, CUDNN_DATA_INT32);
  }

  /// scale q k^T.
  Tensor scores(Tensor q, Tensor k) {
    const Tensor product = graph_.between("q k", of_scores(), CUDNN_DATA_FLOAT);
    graph_.matmul(q, k, product, {.m = queries_, .n = keys_});
    scale_ = graph_.scalar("scale", key_.scale);
    return scores_of({.mode = CUDNN_POINTWISE_MUL, .x = product, .b = scale_}, "scores");
  }

  Tensor hidden() { return graph_.scalar("-inf", -std::numeric_limits<float>::infinity()); }

  Tensor padded(Tensor x) {
    if (!key_.lengths) return x;
    const auto below = [&](int64_t axis, Tensor length, const char* of) {
      const Tensor index = scores_of({CUDNN_POINTWISE_GEN_INDEX, x, Graph::kNone, Graph::kNone, CUDNN_DATA_INT32, axis},
                                     concat("padding's index of ", of), CUDNN_DATA_INT32);
      return std::pair(index, length);
    };
    const auto [row, row_length] = below(2, queries_, "rows");
    const auto [column, column_length] = below(3, keys_, "columns");
    const Tensor in_rows = scores_of({CUDNN_POINTWISE_CMP_LT, row, row_length, Graph::kNone, CUDNN_DATA_BOOLEAN},
                                     "row is there", CUDNN_DATA_BOOLEAN);
    const Tensor in_columns =
        scores_of({CUDNN_POINTWISE_CMP_LT, column, column_length, Graph::kNone, CUDNN_DATA_BOOLEAN}, "column is there",
                  CUDNN_DATA_BOOLEAN);
    const Tensor both = scores_of({CUDNN_POINTWISE_LOGICAL_AND, in_rows, in_columns, Graph::kNone, CUDNN_DATA_BOOLEAN},
                                  "both are", CUDNN_DATA_BOOLEAN);
    return scores_of({CUDNN_POINTWISE_BINARY_SELECT, x, hidden(), both}, "scores without padding");
  }

  Tensor causal(Tensor x) {
    if (!key_.causal) return x;
    const auto index = [&](int64_t axis, const char* name) {
      return scores_of({CUDNN_POINTWISE_GEN_INDEX, x, Graph::kNone, Graph::kNone, CUDNN_DATA_FLOAT, axis}, name,
                       CUDNN_DATA_INT32);
    };
    const Tensor row = index(2, "row"), column = index(3, "column");
    const Tensor seen = scores_of({CUDNN_POINTWISE_CMP_GE, row, column, Graph::kNone, CUDNN_DATA_BOOLEAN},
                                  "column is not behind row", CUDNN_DATA_BOOLEAN);
    return scores_of({CUDNN_POINTWISE_BINARY_SELECT, x, hidden(), seen}, "causal scores");
  }

  /// delta = rowsum(dout out), times one: the graph that cuDNN knows has a factor for dropout there.
  void row_sums(Tensor out, Tensor dout, Tensor delta) {
    const int64_t t = key_.queries, h = key_.heads, d = key_.head_size;
    const Tensor product =
        graph_.between("dout out", {{key_.batch, h, t, d}, {h * t * d, t * d, h * d, 1}}, CUDNN_DATA_FLOAT);
    graph_.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = dout, .b = out}, product);
    const Tensor sum = rows("rowsum(dout out)");
    graph_.reduce(CUDNN_REDUCE_TENSOR_ADD, product, sum);
    graph_.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = sum, .b = graph_.scalar("one", 1.0f)}, delta);
  }

  /// (B, H, S, T) of (B, H, T, S), in the type of the tensors.
  Tensor turned(Tensor x, std::string name) {
    Layout layout = of_scores();
    std::swap(layout.dims[2], layout.dims[3]);
    std::swap(layout.strides[2], layout.strides[3]);
    const Tensor y = graph_.between(std::move(name), layout, type_);
    graph_.reshape(x, y);
    return y;
  }

  AttentionKey key_;
  cudnnDataType_t type_;
  Graph graph_;
  Tensor queries_ = Graph::kNone, keys_ = Graph::kNone, scale_ = Graph::kNone;
};

}  // namespace

Plan plan_attention(const AttentionKey& key, const Target& target, int64_t most_bytes) {
  try {
    Builder builder(key);
    key.backward ? builder.backward() : builder.forward();
    return builder.take().build(target, most_bytes);
  } catch (const Refusal& refusal) {
    throw Refusal(concat(describe(key), ": ", refusal.what()));
  }
}

}  // namespace permafrost::cuda::cudnn
