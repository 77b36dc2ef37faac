// Whatever an operation is made with must be in both hashes: two runs that compute something else may not pass for one.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/graph/ops/activation.h"
#include "core/graph/ops/attention.h"
#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/dropout.h"
#include "core/graph/ops/head_loss.h"
#include "core/graph/ops/joined_linear.h"
#include "core/graph/ops/layer_norm.h"
#include "core/graph/ops/linear.h"
#include "core/graph/ops/patchify.h"
#include "core/graph/ops/reshape.h"
#include "core/graph/ops/shape_ops.h"
#include "core/graph/ops/token_cache.h"
#include "parallel/plan/plan.h"

namespace permafrost {
namespace {

struct Row {
  const char* constant;
  /// Applies one operation; `changed` differs in this constant alone.
  std::function<void(Graph&, bool changed)> build;
};

Value tokens(Graph& g, int64_t width = 12) { return g.input("x", {{2, 4, width}, DType::kF32}); }
Param matrix(Graph& g) { return g.param("w", {12, 12}, Initializer::zeros()); }
Param vector(Graph& g, const char* name) { return g.param(name, {12}, Initializer::zeros()); }

void linear_with(Graph& g, Activation activation, bool wide) {
  linear(g, tokens(g), matrix(g), vector(g, "b"), activation, wide);
}

void joined_with(Graph& g, int64_t weights, bool biases) {
  const Value x = tokens(g);
  std::vector<Param> w, b;
  for (int64_t i = 0; i < weights; ++i) w.push_back(g.param(concat("w", i), {12, 12}, Initializer::zeros()));
  for (int64_t i = 0; biases && i < weights; ++i) b.push_back(vector(g, concat("b", i).c_str()));
  joined_linear(g, x, w, b);
}

/// The only mask value is a (B) i32 that means lengths or open_lengths.
void attention_with(Graph& g, bool fused, int64_t heads, float scale, MaskKind mask, bool open = false) {
  const Value qkv = tokens(g, fused ? 36 : 12), lengths = g.input("lengths", {{2}, DType::kI32});
  const AttentionConfig config{heads, scale, mask, open ? Value{} : lengths, {}, open ? lengths : Value{}};
  if (fused)
    attention_fused(g, qkv, config);
  else
    attention(g, qkv, qkv, qkv, config);
}

std::vector<Row> rows() {
  std::vector<Row> list = {
      {"activation.activation",
       [](Graph& g, bool c) { activation(g, tokens(g), c ? Activation::kGelu : Activation::kRelu); }},
      {"linear.activation",
       [](Graph& g, bool c) { linear_with(g, c ? Activation::kSquaredRelu : Activation::kRelu, false); }},
      {"linear.wide_output", [](Graph& g, bool c) { linear_with(g, Activation::kNone, c); }},
      {"linear.bias", [](Graph& g, bool c) { linear(g, tokens(g), matrix(g), c ? vector(g, "b") : Param{}); }},
      {"joined_linear.parts", [](Graph& g, bool c) { joined_with(g, c ? 2 : 3, false); }},
      {"joined_linear.bias", [](Graph& g, bool c) { joined_with(g, 2, c); }},
      {"layer_norm.eps",
       [](Graph& g, bool c) { layer_norm(g, tokens(g), vector(g, "g"), vector(g, "b"), c ? 1e-3f : 1e-5f); }},
      {"cross_entropy.smoothing",
       [](Graph& g, bool c) {
         cross_entropy(g, tokens(g), g.input("l", {{2, 4}, DType::kI32}), g.input("w", {{2, 4}, DType::kF32}),
                       c ? 0.1f : 0.0f);
       }},
      {"head_loss.smoothing",
       [](Graph& g, bool c) {
         head_loss(g, tokens(g), matrix(g), g.input("l", {{2, 4}, DType::kI32}), g.input("w", {{2, 4}, DType::kF32}),
                   c ? 0.1f : 0.0f);
       }},
      {"dropout.layer",
       [](Graph& g, bool c) {
         dropout(g, tokens(g), g.input("a", {{4}, DType::kI64}), c ? 3 : 4, 0.1f);
       }},
      {"dropout.p",
       [](Graph& g, bool c) {
         dropout(g, tokens(g), g.input("a", {{4}, DType::kI64}), 3, c ? 0.1f : 0.2f);
       }},
      {"patchify.patch",
       [](Graph& g, bool c) {
         patchify(g, g.input("i", {{2, 3, 8, 8}, DType::kF32}), c ? 2 : 4);
       }},
      {"slice_tokens.begin", [](Graph& g, bool c) { slice_tokens(g, tokens(g), c, 2 + c); }},
      {"slice_tokens.end", [](Graph& g, bool c) { slice_tokens(g, tokens(g), 0, 2 + c); }},
      {"overwrite_token.row",
       [](Graph& g, bool c) {
         overwrite_token(g, tokens(g), g.input("v", {{2, 1, 12}, DType::kF32}), c);
       }},
  };
  for (const bool fused : {true, false}) {
    list.push_back(
        {"attention.heads", [=](Graph& g, bool c) { attention_with(g, fused, c ? 2 : 4, 0.5f, MaskKind::kNone); }});
    list.push_back(
        {"attention.scale", [=](Graph& g, bool c) { attention_with(g, fused, 2, c ? 0.5f : 0.25f, MaskKind::kNone); }});
    list.push_back({"attention.mask", [=](Graph& g, bool c) {
                      attention_with(g, fused, 2, 0.5f, c ? MaskKind::kNone : MaskKind::kCausal);
                    }});
    list.push_back({"attention.lengths or open_lengths",
                    [=](Graph& g, bool c) { attention_with(g, fused, 2, 0.5f, MaskKind::kCausalOpenFirst, c); }});
  }
  return list;
}

Plan plan_of(const Row& row, bool changed) {
  PlanRequest request;
  request.build_graph = [&](int64_t) {
    Graph graph(DType::kF32);
    row.build(graph, changed);
    return graph;
  };
  request.buckets = {4};
  request.allow_all_frozen = true;
  return make_plan(request);
}

TEST(PlanHash, ChangesWithEveryConstantOfEveryOperation) {
  for (const Row& row : rows()) {
    const Plan plan = plan_of(row, false), changed = plan_of(row, true);
    EXPECT_NE(plan.hash(), changed.hash()) << row.constant;
    EXPECT_NE(plan.graph_hash(), changed.graph_hash()) << row.constant;
    EXPECT_EQ(plan.hash(), plan_of(row, false).hash()) << row.constant;
    EXPECT_EQ(plan.graph_hash(), plan_of(row, false).graph_hash()) << row.constant;
    const Op &op = *plan.graphs[0].ops()[0].op, &other = *changed.graphs[0].ops()[0].op;
    EXPECT_EQ(op.kind(), other.kind());
    EXPECT_NE(op.constants(), other.constants()) << row.constant;
  }
}

TEST(PlanHash, ChangesWithOperandsOfTheSameShapes) {
  const Row swapped{"operands", [](Graph& g, bool c) {
                      const Value a = g.input("a", {{2, 3}, DType::kF32}), b = g.input("b", {{2, 3}, DType::kF32});
                      c ? add(g, a, b) : add(g, a, a);
                    }};
  EXPECT_NE(plan_of(swapped, false).graph_hash(), plan_of(swapped, true).graph_hash());
}

TEST(PlanHash, ChangesWithTheStateThatIsWritten) {
  for (const bool select : {true, false}) {
    const Row row{"state", [=](Graph& g, bool c) {
                    const Value a = g.state("a", {{2, 4, 12}, DType::kF32}, false),
                                b = g.state("b", {{2, 4, 12}, DType::kF32}, false),
                                two = g.input("n", {{2}, DType::kI32});
                    if (select)
                      select_rows(g, c ? a : b, two, two);
                    else
                      write_tokens(g, c ? a : b, g.input("x", {{2, 1, 12}, DType::kF32}), two);
                  }};
    EXPECT_NE(plan_of(row, false).graph_hash(), plan_of(row, true).graph_hash());
  }
}

/// Sizes of batch and text are no constants: they change the plan, but a checkpoint belongs to any of them.
TEST(PlanHash, ChangesWithShapesButNotThatOfTheGraph) {
  const std::vector<Row> shaped = {
      {"reshape",
       [](Graph& g, bool c) {
         reshape(g, tokens(g), c ? Shape{8, 12} : Shape{96});
       }},
      {"broadcast",
       [](Graph& g, bool c) {
         broadcast(g, g.input("t", {{4, 12}, DType::kF32}), c ? 2 : 3);
       }},
      {"broadcast_param", [](Graph& g, bool c) { broadcast_param(g, matrix(g), c ? 2 : 3); }},
      {"gather_rows",
       [](Graph& g, bool c) {
         gather_rows(g, tokens(g), g.input("r", {{c ? 2 : 3}, DType::kI32}));
       }},
      {"concat_tokens",
       [](Graph& g, bool c) {
         concat_tokens(g, {tokens(g), g.input("y", {{2, c ? 1 : 2, 12}, DType::kF32})});
       }},
  };
  for (const Row& row : shaped) {
    EXPECT_NE(plan_of(row, false).hash(), plan_of(row, true).hash()) << row.constant;
    EXPECT_EQ(plan_of(row, false).graph_hash(), plan_of(row, true).graph_hash()) << row.constant;
  }
}

TEST(PlanHash, TellsNeighbouringFloatsApart) {
  Graph g(DType::kF32);
  const float eps = 1e-5f;
  layer_norm(g, tokens(g), vector(g, "g"), vector(g, "b"), eps);
  layer_norm(g, Value{0}, vector(g, "g"), vector(g, "b"), std::nextafter(eps, 1.0f));
  EXPECT_EQ(g.ops()[0].op->constants(), "eps=1e-05");
  EXPECT_NE(g.ops()[0].op->constants(), g.ops()[1].op->constants());
}

}  // namespace
}  // namespace permafrost
