// Operations that update states of growing texts, and graphs that share units and parameters.
#include "core/graph/ops/token_cache.h"

#include <gtest/gtest.h>

#include "core/graph/ops/linear.h"
#include "core/graph/ops/shape_ops.h"
#include "tests/support/compare.h"
#include "tests/support/run_graph.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

TensorSpec f32(const Shape& shape) { return {shape, DType::kF32}; }
TensorSpec i32(int64_t count) { return {{count}, DType::kI32}; }

TEST(TokenCacheOps, KeepWhatTheyDoNotWrite) {
  Graph g(DType::kF32);
  const Value cache = g.state("cache", f32({4, 3, 2}), false);
  const Value x = g.input("x", f32({2, 1, 2})), positions = g.input("positions", i32(2)),
              rows = g.input("rows", i32(4)), lengths = g.input("lengths", i32(4));
  select_rows(g, cache, rows, lengths);
  write_tokens(g, cache, x, positions);
  const Value sum = g.name(add(g, cache, cache), "sum");
  (void)sum;
  GraphRunner runner(g, {});
  const Tensor state = runner.value("cache");
  for (int64_t i = 0; i < state.elements(); ++i) state.data<float>()[i] = static_cast<float>(i);
  runner.set_input("x", {100, 101, 102, 103});
  runner.set_input("positions", {2, 1});
  runner.set_input("rows", {1, 1, 2, 3});
  runner.set_input("lengths", {1, 3, 3, 3});
  runner.run();
  const std::vector<double> want{6,  7,  2,   3,   100, 101, 6,  7,  8,   9,   100, 101,
                                 12, 13, 102, 103, 16,  17,  18, 19, 102, 103, 22,  23};
  EXPECT_EQ(values_of(state), want);
  std::vector<double> doubled;
  for (const double value : want) doubled.push_back(2 * value);
  EXPECT_EQ(values_of(runner.value("sum")), doubled);
}

TEST(TokenCacheOps, GatherRowsOfAllLeadingAxes) {
  Graph g(DType::kF32);
  const Value x = g.input("x", f32({2, 3, 2})), rows = g.input("rows", i32(3));
  const Value out = g.name(gather_rows(g, x, rows), "out");
  EXPECT_EQ(g.spec(out), f32({3, 1, 2}));
  GraphRunner runner(g, {});
  runner.set_input("x", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  runner.set_input("rows", {5, 0, 5});
  runner.run();
  EXPECT_EQ(values_of(runner.value("out")), (std::vector<double>{10, 11, 0, 1, 10, 11}));
}

TEST(TokenCacheOps, RefuseOtherShapesAndGradients) {
  Graph g(DType::kF32);
  const Value cache = g.state("cache", f32({4, 3, 2}), false), flat = g.state("flat", f32({4, 6}), false);
  const Value x = g.input("x", f32({2, 1, 2})), wide = g.input("wide", f32({2, 1, 3})), two = g.input("two", i32(2)),
              four = g.input("four", i32(4)), three = g.input("three", f32({3, 1, 2}));
  const auto refuses = [](const std::function<void()>& build, const std::string& part) {
    EXPECT_TRUE(throws_error(build, ErrorKind::kShapeMismatch, {part}));
  };
  refuses([&] { write_tokens(g, flat, x, two); }, "write_tokens: the state must be (R, S, C)");
  refuses([&] { write_tokens(g, cache, wide, two); }, "x must be (B, t, C)");
  refuses([&] { write_tokens(g, cache, three, two); }, "B that divides R");
  refuses([&] { write_tokens(g, cache, x, four); }, "positions must be (2) i32");
  refuses([&] { select_rows(g, cache, two, four); }, "rows must be (4) i32");
  refuses([&] { select_rows(g, cache, four, two); }, "lengths must be (4) i32");
  refuses([&] { gather_rows(g, x, x); }, "gather_rows: expected values (..., C) and rows (n) i32");
  EXPECT_TRUE(throws_error([&] { g.update_state(x, nullptr, {}); }, ErrorKind::kInvalidArgument,
                           {"the target must be a state; got x"}));
  const Value gathered = gather_rows(g, x, two);
  (void)gathered;
  EXPECT_TRUE(throws_error(
      [&] {
        g.ops().back().op->backward_use({bit(0), 0});
      },
      ErrorKind::kInvalidArgument, {"gather_rows: expected a graph without backward"}));
}

TEST(SharingGraph, HasTheTablesOfItsOwner) {
  Graph owner(DType::kF32);
  {
    auto unit = owner.unit("first");
    linear(owner, owner.input("x", f32({2, 4})), owner.param("w", {3, 4}, Initializer::zeros()));
  }
  {
    auto unit = owner.unit("second");
    linear(owner, owner.input("y", f32({2, 4})), owner.param("v", {5, 4}, Initializer::zeros()));
  }
  Graph graph = Graph::sharing(owner);
  EXPECT_TRUE(graph.ops().empty() && graph.values().empty());
  {
    auto unit = graph.unit("second");
    linear(graph, graph.input("z", f32({2, 4})), graph.param("v", {5, 4}, Initializer::zeros()));
  }
  ASSERT_EQ(graph.params().size(), 2u);
  ASSERT_EQ(graph.units().size(), 2u);
  EXPECT_EQ(graph.ops()[0].unit, 1);
  EXPECT_EQ(graph.ops()[0].params[0], 1);
  EXPECT_TRUE(throws_error([&] { graph.unit("third"); }, ErrorKind::kInternal, {"units of their owner; got third"}));
  EXPECT_TRUE(throws_error([&] { graph.param("u", {1}, Initializer::zeros()); }, ErrorKind::kInternal,
                           {"those of their owner; got u"}));
}

}  // namespace
}  // namespace permafrost
