#include "core/graph/ops/activation.h"
#include "core/graph/ops/attention.h"
#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/dropout.h"
#include "core/graph/ops/embedding.h"
#include "core/graph/ops/layer_norm.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/patchify.h"
#include "core/graph/ops/shape_ops.h"
#include "tests/graph/op_matrix.h"
#include "tests/reference/activation_ref.h"
#include "tests/reference/attention_ref.h"
#include "tests/reference/cross_entropy_ref.h"
#include "tests/reference/dropout_ref.h"
#include "tests/reference/embedding_ref.h"
#include "tests/reference/layer_norm_ref.h"
#include "tests/reference/linear_ref.h"
#include "tests/reference/patchify_ref.h"
#include "tests/reference/shape_ops_ref.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;
using Operands = std::vector<Duals>;

Value value_in(Graph& g, const Shape& shape) { return g.input(concat("in", g.values().size()), {shape, g.compute()}); }
Value input_in(Graph& g, const Shape& shape, DType dtype) {
  return g.input(concat("in", g.values().size()), {shape, dtype});
}
Param param_in(Graph& g, const Shape& shape) {
  return g.param(concat("param", g.params().size()), shape, Initializer::zeros());
}

std::vector<int32_t> integers(const Duals& values) {
  std::vector<int32_t> result;
  for (const Dual& value : values) result.push_back(static_cast<int32_t>(value.value));
  return result;
}

OpCase linear_case(const std::string& name, Activation kind, bool bias, bool wide, const Shape& weight) {
  return {name,
          [=](Graph& g) {
            const Value x = value_in(g, {2, 3, 8});
            const Param w = param_in(g, weight);
            linear(g, x, w, bias ? param_in(g, {5}) : Param{}, kind, wide);
          },
          [=](const Operands& x, const Operands& p) {
            return reference::linear({6, 5, 8}, x[0], p[0], bias ? p[1] : Duals{}, kind).y;
          },
          bit(0)};
}

TEST(FreezingMatrix, Linear) {
  check_freezing_matrix(linear_case("plain", Activation::kNone, true, false, {5, 8}));
  check_freezing_matrix(linear_case("without bias, wide output", Activation::kNone, false, true, {5, 8}));
  check_freezing_matrix(linear_case("gelu, convolution weight", Activation::kGelu, true, false, {5, 2, 2, 2}));
  check_freezing_matrix(linear_case("relu", Activation::kRelu, true, false, {5, 8}));
}

TEST(FreezingMatrix, LayerNorm) {
  check_freezing_matrix(
      {"layer_norm",
       [](Graph& g) {
         const Value x = value_in(g, {3, 2, 9});
         const Param gain = param_in(g, {9});
         layer_norm(g, x, gain, param_in(g, {9}), 1e-3f);
       },
       [](const Operands& x, const Operands& p) { return reference::layer_norm(x[0], p[0], p[1], 1e-3).y; }, bit(0)});
}

TEST(FreezingMatrix, Activation) {
  for (Activation kind :
       {Activation::kGelu, Activation::kQuickGelu, Activation::kRelu, Activation::kSquaredRelu, Activation::kTanh})
    check_freezing_matrix({std::string(to_string(kind)),
                           [=](Graph& g) {
                             activation(g, value_in(g, {3, 17}), kind);
                           },
                           [=](const Operands& x, const Operands&) {
                             Duals y;
                             for (const Dual& value : x[0]) y.push_back(reference::activation(kind, value));
                             return y;
                           },
                           bit(0)});
}

TEST(FreezingMatrix, Embedding) {
  check_freezing_matrix(
      {"embedding",
       [](Graph& g) {
         const Value ids = input_in(g, {2, 4}, DType::kI32);
         embedding(g, ids, param_in(g, {6, 5}));
       },
       [](const Operands& x, const Operands& p) { return reference::embedding(integers(x[0]), p[0], 5); },
       0,
       {{0, {3, 0, 3, 5, 1, 1, 1, 0}}}});
}

TEST(FreezingMatrix, Patchify) {
  check_freezing_matrix({"patchify",
                         [](Graph& g) {
                           patchify(g, input_in(g, {2, 2, 4, 6}, DType::kF32), 2);
                         },
                         [](const Operands& x, const Operands&) {
                           return reference::patchify(x[0], {2, 2, 4, 6, 2});
                         },
                         bit(0)});
}

TEST(FreezingMatrix, Add) {
  check_freezing_matrix({"add",
                         [](Graph& g) {
                           const Value a = value_in(g, {2, 3, 5});
                           add(g, a, value_in(g, {2, 3, 5}));
                         },
                         [](const Operands& x, const Operands&) { return reference::add(x[0], x[1]); },
                         bit(0) | bit(1)});
  for (const Shape& table : {Shape{3, 5}, Shape{1, 3, 5}})
    check_freezing_matrix({"add_param",
                           [=](Graph& g) {
                             const Value x = value_in(g, {2, 3, 5});
                             add_param(g, x, param_in(g, table));
                           },
                           [](const Operands& x, const Operands& p) { return reference::add(x[0], p[0]); }, bit(0)});
}

TEST(FreezingMatrix, ScaleByParam) {
  check_freezing_matrix({"scale_by_param",
                         [](Graph& g) {
                           const Value x = value_in(g, {2, 3, 5});
                           scale_by_param(g, x, param_in(g, {1}));
                         },
                         [](const Operands& x, const Operands& p) { return reference::scale(x[0], p[0][0]); }, bit(0)});
}

TEST(FreezingMatrix, Broadcast) {
  for (const Shape& shape : {Shape{3, 5}, Shape{1, 3, 5}}) {
    check_freezing_matrix({"broadcast_param", [=](Graph& g) { broadcast_param(g, param_in(g, shape), 4); },
                           [](const Operands&, const Operands& p) { return reference::broadcast_leading(p[0], 4); }});
    check_freezing_matrix({"param_value", [=](Graph& g) { param_value(g, param_in(g, shape)); },
                           [](const Operands&, const Operands& p) { return p[0]; }});
  }
  check_freezing_matrix({"broadcast",
                         [](Graph& g) {
                           broadcast(g, value_in(g, {3, 5}), 4);
                         },
                         [](const Operands& x, const Operands&) { return reference::broadcast_leading(x[0], 4); },
                         bit(0)});
}

TEST(FreezingMatrix, Tokens) {
  check_freezing_matrix({"concat_tokens",
                         [](Graph& g) {
                           const Value a = value_in(g, {2, 1, 5}), b = value_in(g, {2, 4, 5});
                           concat_tokens(g, {a, b, value_in(g, {2, 2, 5})});
                         },
                         [](const Operands& x, const Operands&) {
                           return reference::concat_tokens<Dual>(x, 2, {1, 4, 2}, 5);
                         },
                         bit(0) | bit(1) | bit(2)});
  check_freezing_matrix(
      {"slice_tokens",
       [](Graph& g) {
         slice_tokens(g, value_in(g, {2, 6, 5}), 1, 4);
       },
       [](const Operands& x, const Operands&) { return reference::slice_tokens(x[0], 2, 6, 5, 1, 4); }, bit(0)});
  check_freezing_matrix(
      {"overwrite_token",
       [](Graph& g) {
         const Value x = value_in(g, {2, 6, 5});
         overwrite_token(g, x, value_in(g, {2, 1, 5}), 3);
       },
       [](const Operands& x, const Operands&) { return reference::overwrite_token(x[0], x[1], 2, 6, 5, 3); },
       bit(0) | bit(1)});
}

TEST(FreezingMatrix, Dropout) {
  check_freezing_matrix({"dropout",
                         [](Graph& g) {
                           const Value x = value_in(g, {2, 3, 7});
                           dropout(g, x, input_in(g, {4}, DType::kI64), 5, 0.4f);
                         },
                         [](const Operands& x, const Operands&) {
                           auto factors = reference::dropout_factors(9, 2, 70, 5, 0.4f, 21);
                           const auto second = reference::dropout_factors(9, 2, 3, 5, 0.4f, 21);
                           factors.insert(factors.end(), second.begin(), second.end());
                           return reference::dropout(x[0], factors);
                         },
                         bit(0),
                         {{1, {9, 2, 70, 3}}}});
}

TEST(FreezingMatrix, CrossEntropy) {
  for (const bool scaled : {false, true})
    check_freezing_matrix(
        {scaled ? "cross_entropy, scaled" : "cross_entropy",
         [scaled](Graph& g) {
           const Value logits = value_in(g, {2, 3, 7}), labels = input_in(g, {2, 3}, DType::kI32);
           const Value weights = input_in(g, {2, 3}, DType::kF32);
           cross_entropy(g, logits, labels, weights, 0.1f, scaled ? input_in(g, {1}, DType::kF32) : Value{});
         },
         [](const Operands& x, const Operands&) {
           const Duals loss = reference::cross_entropy(x[0], integers(x[1]), 7, static_cast<double>(0.1f));
           Dual sum;
           for (size_t r = 0; r < loss.size(); ++r) sum += x[2][r] * loss[r];
           return Duals{sum};
         },
         bit(0),
         {{1, {0, 6, -100, 3, 3, 2}}, {3, {1}}},
         1,
         true});
}

constexpr reference::AttentionSizes kSelf{2, 5, 5, 2, 3}, kCross{2, 3, 5, 2, 3};

Duals attend(const reference::AttentionSizes& n, const std::vector<uint8_t>& seen, const Duals& q, const Duals& k,
             const Duals& v) {
  return reference::attention(n, seen, 0.5, q, k, v).out;
}

/// Columns [6 index, 6 index + 6) of every row of 18.
Duals fused_part(const Duals& qkv, size_t index) {
  Duals part;
  for (size_t row = 0; row < qkv.size() / 18; ++row)
    for (size_t c = 0; c < 6; ++c) part.push_back(qkv[row * 18 + index * 6 + c]);
  return part;
}

/// Every mask of a decoder's text, on one product of q, k and v.
TEST(FreezingMatrix, AttentionFused) {
  struct Masked {
    const char* name;
    MaskKind kind;
    std::vector<int64_t> lengths, open;
    std::vector<uint8_t> allowed;
  };
  std::vector<uint8_t> every_third(2 * 5 * 5, 1);
  for (size_t i = 0; i < every_third.size(); i += 3) every_third[i] = 0;
  for (const Masked& m :
       {Masked{"no mask", MaskKind::kNone, {}, {}, {}}, Masked{"lengths", MaskKind::kNone, {5, 3}, {}, {}},
        Masked{"causal with lengths", MaskKind::kCausal, {5, 3}, {}, {}},
        Masked{"open first row", MaskKind::kCausalOpenFirst, {5, 3}, {}, {}},
        Masked{"open first row with lengths of its own", MaskKind::kCausalOpenFirst, {5, 3}, {5, 4}, {}},
        Masked{"explicit with lengths", MaskKind::kExplicit, {4, 5}, {}, every_third}}) {
    std::map<size_t, std::vector<double>> fixed;
    const auto fix = [&](const auto& values) {
      if (!values.empty()) fixed.insert({1 + fixed.size(), {values.begin(), values.end()}});
    };
    fix(m.lengths), fix(m.allowed), fix(m.open);
    check_freezing_matrix({m.name,
                           [&](Graph& g) {
                             AttentionConfig config{2, 0.5f, m.kind, {}, {}, {}};
                             const Value qkv = value_in(g, {2, 5, 18});
                             if (!m.lengths.empty()) config.lengths = input_in(g, {2}, DType::kI32);
                             if (!m.allowed.empty()) config.allowed = input_in(g, {2, 5, 5}, DType::kU8);
                             if (!m.open.empty()) config.open_lengths = input_in(g, {2}, DType::kI32);
                             attention_fused(g, qkv, config);
                           },
                           [&](const Operands& x, const Operands&) {
                             const auto seen =
                                 reference::visibility(kSelf, m.kind, m.lengths, m.open, m.allowed, false);
                             return attend(kSelf, seen, fused_part(x[0], 0), fused_part(x[0], 1), fused_part(x[0], 2));
                           },
                           bit(0), fixed});
  }
}

TEST(FreezingMatrix, AttentionOnSeparateValues) {
  const auto build = [](Graph& g, AttentionConfig config, int64_t queries,
                        const std::function<void(AttentionConfig&)>& masks) {
    const Value q = value_in(g, {2, queries, 6}), k = value_in(g, {2, 5, 6}), v = value_in(g, {2, 5, 6});
    masks(config);
    attention(g, q, k, v, config);
  };
  const BitMask qkv = bit(0) | bit(1) | bit(2);
  check_freezing_matrix({"no mask, other lengths",
                         [=](Graph& g) {
                           build(g, {2, 0.5f, MaskKind::kNone, {}, {}, {}}, 3, [](AttentionConfig&) {});
                         },
                         [](const Operands& x, const Operands&) {
                           return attend(kCross, reference::visibility(kCross, MaskKind::kNone, {}, {}, {}, false),
                                         x[0], x[1], x[2]);
                         },
                         qkv});
  // One query of the second sample sees nothing; lengths and allowed together.
  const std::vector<uint8_t> allowed{1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1,
                                     0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1};
  check_freezing_matrix({"explicit",
                         [=](Graph& g) {
                           build(g, {2, 0.5f, MaskKind::kExplicit, {}, {}, {}}, 3, [&](AttentionConfig& config) {
                             config.lengths = input_in(g, {2}, DType::kI32);
                             config.allowed = input_in(g, {2, 3, 5}, DType::kU8);
                           });
                         },
                         [=](const Operands& x, const Operands&) {
                           return attend(kCross,
                                         reference::visibility(kCross, MaskKind::kExplicit, {4, 5}, {}, allowed, false),
                                         x[0], x[1], x[2]);
                         },
                         qkv,
                         {{3, {4, 5}}, {4, {allowed.begin(), allowed.end()}}}});
  check_freezing_matrix(
      {"open first row with lengths of its own",
       [=](Graph& g) {
         build(g, {2, 0.5f, MaskKind::kCausalOpenFirst, {}, {}, {}}, 5, [&](AttentionConfig& config) {
           config.lengths = input_in(g, {2}, DType::kI32);
           config.open_lengths = input_in(g, {2}, DType::kI32);
         });
       },
       [](const Operands& x, const Operands&) {
         return attend(kSelf, reference::visibility(kSelf, MaskKind::kCausalOpenFirst, {5, 3}, {5, 4}, {}, false), x[0],
                       x[1], x[2]);
       },
       qkv,
       {{3, {5, 3}}, {4, {5, 4}}}});
}

/// What backward reads: a frozen linear saves nothing but what its activation needs, and so on.
TEST(BackwardUse, NamesWhatIsReadAndNothingElse) {
  struct Row {
    std::string name;
    std::function<void(Graph&)> build;
    Needs needs;
    BitMask inputs, outputs, params;
    size_t saved;
  };
  const auto plain = [](Graph& g) {
    const Value x = value_in(g, {2, 8});
    linear(g, x, param_in(g, {5, 8}), param_in(g, {5}));
  };
  const auto gelu = [](Graph& g) {
    const Value x = value_in(g, {2, 8});
    linear(g, x, param_in(g, {5, 8}), {}, Activation::kGelu);
  };
  const auto relu = [](Graph& g) {
    const Value x = value_in(g, {2, 8});
    linear(g, x, param_in(g, {5, 8}), {}, Activation::kRelu);
  };
  const auto norm = [](Graph& g) {
    const Value x = value_in(g, {2, 8});
    layer_norm(g, x, param_in(g, {8}), param_in(g, {8}), 1e-5f);
  };
  const auto table = [](Graph& g) {
    const Value ids = input_in(g, {3}, DType::kI32);
    embedding(g, ids, param_in(g, {4, 5}));
  };
  const auto scaled = [](Graph& g) {
    const Value x = value_in(g, {2, 8});
    scale_by_param(g, x, param_in(g, {1}));
  };
  const auto sum = [](Graph& g) {
    const Value a = value_in(g, {2, 8});
    add(g, a, value_in(g, {2, 8}));
  };
  const Needs pass_through{bit(0), 0}, weight{0, bit(0)}, bias{0, bit(1)}, inner{bit(0), bit(0)};
  const Row rows[] = {
      {"frozen linear", plain, pass_through, 0, 0, bit(0), 0},
      {"first linear", plain, weight, bit(0), 0, 0, 0},
      {"bias alone", plain, bias, 0, 0, 0, 0},
      {"inner linear", plain, inner, bit(0), 0, bit(0), 0},
      {"frozen gelu linear", gelu, pass_through, 0, 0, bit(0), 1},
      {"frozen relu linear", relu, pass_through, 0, bit(0), bit(0), 0},
      {"frozen norm", norm, pass_through, bit(0), 0, bit(0), 2},
      {"first norm", norm, weight, bit(0), 0, 0, 2},
      {"first table", table, weight, bit(0), 0, 0, 0},
      {"frozen scale", scaled, pass_through, 0, 0, bit(0), 0},
      {"first scale", scaled, weight, bit(0), 0, 0, 0},
      {"sum", sum, {bit(0) | bit(1), 0}, 0, 0, 0, 0},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Graph g(DType::kF32);
    row.build(g);
    const Op& op = *g.ops()[0].op;
    const BackwardUse use = op.backward_use(row.needs);
    EXPECT_EQ(use.inputs, row.inputs);
    EXPECT_EQ(use.outputs, row.outputs);
    EXPECT_EQ(use.params, row.params);
    EXPECT_EQ(op.saved(g.specs_of(g.ops()[0]), row.needs).size(), row.saved);
  }
}

TEST(Ops, NothingToDoGivesTheValueItself) {
  Graph g(DType::kF32);
  const Value x = value_in(g, {2, 3}), address = input_in(g, {4}, DType::kI64);
  EXPECT_EQ(activation(g, x, Activation::kNone).index, x.index);
  EXPECT_EQ(dropout(g, x, address, 0, 0.0f).index, x.index);
  EXPECT_TRUE(g.ops().empty());
}

TEST(Ops, OutputsHaveTheShapesOfTheHeaders) {
  Graph g(DType::kBF16);
  const auto spec = [&](Value v) { return g.spec(v); };
  const auto bf16 = [](const Shape& shape) { return TensorSpec{shape, DType::kBF16}; };
  const Value x = value_in(g, {2, 4, 6});
  EXPECT_EQ(spec(linear(g, x, param_in(g, {5, 6}))), bf16({2, 4, 5}));
  EXPECT_EQ(spec(linear(g, x, param_in(g, {5, 6}), {}, Activation::kNone, true)), (TensorSpec{{2, 4, 5}, DType::kF32}));
  EXPECT_EQ(spec(embedding(g, input_in(g, {2, 4}, DType::kI32), param_in(g, {9, 3}))), bf16({2, 4, 3}));
  EXPECT_EQ(spec(patchify(g, input_in(g, {2, 3, 8, 4}, DType::kF32), 2)), bf16({2, 8, 12}));
  EXPECT_EQ(spec(broadcast_param(g, param_in(g, {1, 3, 6}), 2)), bf16({2, 3, 6}));
  EXPECT_EQ(spec(param_value(g, param_in(g, {1, 3, 6}))), bf16({3, 6}));
  EXPECT_EQ(spec(concat_tokens(g, {x, x})), bf16({2, 8, 6}));
  EXPECT_EQ(spec(slice_tokens(g, x, 1, 1)), bf16({2, 0, 6}));
  EXPECT_EQ(spec(attention_fused(g, x, {2, 1.0f, MaskKind::kNone, {}, {}, {}})), bf16({2, 4, 2}));
  const CrossEntropyValues ce = cross_entropy(g, x, input_in(g, {8}, DType::kI32), input_in(g, {2, 4}, DType::kF32), 0);
  EXPECT_EQ(spec(ce.row_loss), (TensorSpec{{8}, DType::kF32}));
  EXPECT_EQ(spec(ce.loss), (TensorSpec{{1}, DType::kF64}));
}

TEST(Ops, FlopsOfProducts) {
  Graph g(DType::kF32);
  const Value x = value_in(g, {2, 4, 6});
  linear(g, x, param_in(g, {5, 6}));
  attention_fused(g, x, {2, 1.0f, MaskKind::kNone, {}, {}, {}});
  const OpFlops product = g.ops()[0].op->flops(g.specs_of(g.ops()[0]));
  EXPECT_EQ(product.forward, 2 * 8 * 6 * 5);
  EXPECT_EQ(product.backward_inputs, product.forward);
  EXPECT_EQ(product.backward_params, product.forward);
  const OpFlops attention = g.ops()[1].op->flops(g.specs_of(g.ops()[1]));
  EXPECT_EQ(attention.forward, 2 * 2 * (2 * 4 * 4 * 2));  // two products of 2 samples, 4 queries, 4 keys, width 2
  EXPECT_EQ(attention.backward_inputs, 2.5 * attention.forward);
}

/// Every refusal names what was expected, what came, and the scope.
TEST(OpErrors, ShapesAreRefusedWithTheScope) {
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  const auto refused = [](const std::function<void(Graph&)>& build, ErrorKind kind, std::vector<std::string> parts) {
    parts.push_back("[scope=blocks.3]");
    EXPECT_TRUE(throws_error(
        [&] {
          Graph g(DType::kF32);
          const auto scope = g.scope("blocks.3");
          build(g);
        },
        kind, parts));
  };
  const auto x = [](Graph& g) { return value_in(g, {2, 4, 6}); };
  const auto other = [](Graph& g) { return value_in(g, {2, 4, 5}); };
  const auto i32 = [](Graph& g, const Shape& s) { return input_in(g, s, DType::kI32); };

  refused(
      [&](Graph& g) {
        linear(g, x(g), param_in(g, {5, 7}));
      },
      shape, {"linear: input must end in K=7", "got (2, 4, 6) f32", "[param=param0]"});
  refused([&](Graph& g) { layer_norm(g, x(g), param_in(g, {5}), param_in(g, {6}), 0); }, shape,
          {"layer_norm: gain and bias must be (6)", "got (5)"});
  refused([&](Graph& g) { layer_norm(g, i32(g, {6}), param_in(g, {6}), param_in(g, {6}), 0); }, shape,
          {"layer_norm: input must be (..., C) f32, bf16 or f16; got (6) i32"});
  refused([&](Graph& g) { activation(g, i32(g, {6}), Activation::kRelu); }, shape,
          {"activation: input must be f32, bf16 or f16; got (6) i32"});
  refused(
      [&](Graph& g) {
        embedding(g, x(g), param_in(g, {5, 7}));
      },
      shape, {"embedding: ids must be (...) i32; got (2, 4, 6) f32"});
  refused([&](Graph& g) { embedding(g, i32(g, {3}), param_in(g, {5})); }, shape,
          {"embedding: table must be (V, C); got (5)"});
  refused(
      [&](Graph& g) {
        patchify(g, input_in(g, {2, 3, 8, 6}, DType::kF32), 4);
      },
      shape, {"patchify: images must be (B, C, H, W) f32", "multiples of 4; got (2, 3, 8, 6) f32"});
  refused([&](Graph& g) { add(g, x(g), other(g)); }, shape,
          {"add: both values must have one shape", "(2, 4, 6) f32 and (2, 4, 5) f32"});
  refused(
      [&](Graph& g) {
        add_param(g, x(g), param_in(g, {4, 5}));
      },
      shape, {"add_param: the table must be", "got (4, 5)"});
  refused(
      [&](Graph& g) {
        add_param(g, value_in(g, {4, 5}), param_in(g, {4, 5}));
      },
      shape, {"add_param: values must be (B, T, C); got (4, 5) f32"});
  refused(
      [&](Graph& g) {
        scale_by_param(g, x(g), param_in(g, {1, 1}));
      },
      shape, {"scale_by_param: scale must be (1); got (1, 1)"});
  refused(
      [&](Graph& g) {
        broadcast_param(g, param_in(g, {2, 3, 4}), 2);
      },
      shape, {"broadcast_param: a table must be (T, C) or (1, T, C); got (2, 3, 4)"});
  refused([&](Graph& g) { param_value(g, param_in(g, {2})); }, shape, {"param_value: a table must be", "got (2)"});
  refused([&](Graph& g) { broadcast(g, x(g), 2); }, shape, {"broadcast: value must be (T, C); got (2, 4, 6) f32"});
  refused(
      [&](Graph& g) {
        concat_tokens(g, {x(g), other(g)});
      },
      shape, {"concat_tokens: parts must agree but for T", "(2, 4, 5) f32"});
  refused([&](Graph& g) { slice_tokens(g, x(g), 2, 5); }, shape,
          {"slice_tokens: tokens must lie within the 4", "got 2..5"});
  refused([&](Graph& g) { overwrite_token(g, x(g), other(g), 0); }, shape,
          {"overwrite_token: the new token must be (B, 1, C)", "got (2, 4, 5) f32"});
  refused(
      [&](Graph& g) {
        overwrite_token(g, x(g), value_in(g, {2, 1, 6}), 4);
      },
      shape, {"overwrite_token: row must lie within 4 tokens; got 4"});
  refused([&](Graph& g) { dropout(g, x(g), input_in(g, {3}, DType::kI64), 0, 0.5f); }, shape,
          {"dropout: address must be (2 + B) i64", "got (3) i64"});
  refused([&](Graph& g) { dropout(g, x(g), input_in(g, {4}, DType::kI64), 0, 1.0f); }, argument,
          {"dropout: p must lie in [0, 1); got 1"});
  refused([&](Graph& g) { dropout(g, i32(g, {2}), input_in(g, {4}, DType::kI64), 0, 0.5f); }, shape,
          {"dropout: input must be f32, bf16 or f16; got (2) i32"});
  refused([&](Graph& g) { cross_entropy(g, x(g), i32(g, {7}), value_in(g, {8}), 0); }, shape,
          {"cross_entropy: labels must be 8 elements of i32; got (7) i32"});
  refused([&](Graph& g) { cross_entropy(g, x(g), i32(g, {8}), i32(g, {8}), 0); }, shape,
          {"cross_entropy: row_weight must be 8 elements of f32; got (8) i32"});
  refused(
      [&](Graph& g) {
        cross_entropy(g, i32(g, {8, 2}), i32(g, {8}), value_in(g, {8}), 0);
      },
      shape, {"cross_entropy: logits must be (..., V) f32, bf16 or f16"});
  refused([&](Graph& g) { cross_entropy(g, x(g), i32(g, {8}), value_in(g, {8}), 1.5f); }, argument,
          {"cross_entropy: smoothing must lie in [0, 1); got 1.5"});
}

TEST(OpErrors, AttentionChecksHeadsAndMasks) {
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  const auto refused = [](const std::function<void(Graph&, AttentionConfig&)>& build, ErrorKind kind,
                          const std::vector<std::string>& parts) {
    EXPECT_TRUE(throws_error(
        [&] {
          Graph g(DType::kF32);
          AttentionConfig config;
          config.heads = 2;
          build(g, config);
        },
        kind, parts));
  };
  const auto self = [](Graph& g, const AttentionConfig& c) { attention_fused(g, value_in(g, {2, 4, 12}), c); };
  const auto cross = [](Graph& g, const AttentionConfig& c) {
    const Value q = value_in(g, {2, 4, 6}), k = value_in(g, {2, 5, 6});
    attention(g, q, k, k, c);
  };
  refused(
      [&](Graph& g, AttentionConfig& c) {
        attention_fused(g, value_in(g, {2, 4, 10}), c);
      },
      shape, {"attention_fused: qkv must be (B, T, 3 C); got (2, 4, 10) f32"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.heads = 3;
        self(g, c);
      },
      shape, {"attention_fused: width must be a multiple of heads = 3; got 4"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.mask = MaskKind::kCausal;
        cross(g, c);
      },
      shape, {"attention: a causal mask must have as many queries as keys; got T=4 S=5"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.lengths = input_in(g, {3}, DType::kI32);
        self(g, c);
      },
      shape, {"attention_fused: lengths must be (2) i32; got (3) i32"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.mask = MaskKind::kExplicit;
        c.allowed = input_in(g, {2, 5, 4}, DType::kU8);
        cross(g, c);
      },
      shape, {"attention: allowed must be (2, 4, 5) u8; got (2, 5, 4) u8"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.mask = MaskKind::kExplicit;
        cross(g, c);
      },
      argument, {"attention: allowed must be given with an explicit mask", "got none"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.allowed = input_in(g, {2, 4, 5}, DType::kU8);
        cross(g, c);
      },
      argument, {"got it with another"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        c.mask = MaskKind::kCausal;
        c.open_lengths = input_in(g, {2}, DType::kI32);
        self(g, c);
      },
      argument, {"attention_fused: open_lengths must come with an open first row alone"});
  refused(
      [&](Graph& g, AttentionConfig& c) {
        const Value q = value_in(g, {2, 4, 6}), k = value_in(g, {2, 5, 4});
        attention(g, q, k, k, c);
      },
      shape, {"attention: k and v must be (B, S, C) for q (2, 4, 6) f32", "got (2, 5, 4) f32"});
}

}  // namespace
}  // namespace permafrost
