// States: what they carry from one micro-batch to the next counts for the frontier, but no gradient flows through them.
#include "core/graph/needs.h"

#include <gtest/gtest.h>

#include "core/graph/ops/cross_entropy.h"
#include "core/graph/ops/shape_ops.h"

namespace permafrost {
namespace {

const TensorSpec kSpec{{2, 3, 4}, DType::kF32};

/// Units "read" and "write", in either order: `read` adds a state to the input, `write` puts the input plus a table
/// into the state. The loss sees both.
Graph one_state(bool read_first) {
  Graph g(DType::kF32);
  const Value x = g.input("x", kSpec), state = g.state("memory", kSpec, true);
  Value read, written;
  const auto reader = [&] {
    auto unit = g.unit("read");
    read = g.name(add(g, x, state), "out");
  };
  if (read_first) reader();
  {
    auto unit = g.unit("write");
    written = g.name(add_param(g, x, g.param("table", {3, 4}, Initializer::zeros())), "out");
    g.write_state(state, written);
  }
  if (!read_first) reader();
  auto unit = g.unit("head");
  const Value logits = add(g, read, written);
  g.set_loss(
      cross_entropy(g, logits, g.input("labels", {{2, 3}, DType::kI32}), g.input("weights", {{2, 3}, DType::kF32}), 0)
          .loss);
  return g;
}

size_t unit(const Graph& g, std::string_view name) {
  for (size_t u = 0; u < g.units().size(); ++u)
    if (g.units()[u].name == name) return u;
  ADD_FAILURE() << "no unit " << name;
  return 0;
}

TEST(NeedsOfStates, WhatReadsATrainedStateIsInFrontOfTheFrontierWhereverItStands) {
  for (const bool read_first : {true, false}) {
    const Graph g = one_state(read_first);
    const NeedAnalysis needs = analyse_needs(g, {true});
    const size_t read = unit(g, "read"), write = unit(g, "write"), head = unit(g, "head");
    EXPECT_FALSE(needs.behind_frontier[read]) << read_first;
    EXPECT_EQ(needs.frontier_reason[read], "depends on trainable table (unit write)");
    EXPECT_EQ(needs.frontier_reason[write], "trains table");
    EXPECT_EQ(needs.frontier_reason[head], "depends on trainable table (unit write)");
  }
}

TEST(NeedsOfStates, NoGradientFlowsThroughAState) {
  for (const bool read_first : {true, false}) {
    const Graph g = one_state(read_first);
    const NeedAnalysis needs = analyse_needs(g, {true});
    EXPECT_EQ(needs.unit_class[unit(g, "read")], FreezeClass::kPrefix) << read_first;
    EXPECT_EQ(needs.unit_class[unit(g, "write")], FreezeClass::kFirst);
    EXPECT_EQ(needs.unit_class[unit(g, "head")], FreezeClass::kPassThrough);
    EXPECT_FALSE(needs.value_needs_gradient[static_cast<size_t>(g.find_value("read.out"))]);
    EXPECT_TRUE(needs.value_needs_gradient[static_cast<size_t>(g.find_value("write.out"))]);
    EXPECT_FALSE(needs.value_needs_gradient[static_cast<size_t>(g.find_value("memory"))]);
    for (size_t o = 0; o < g.ops().size(); ++o)
      if (g.ops()[o].outputs == std::vector<int>{g.find_value("read.out")}) {
        EXPECT_FALSE(needs.op_needs[o].any());
      }
  }
}

TEST(NeedsOfStates, FrozenStatesStillChangeFromStepToStep) {
  for (const bool read_first : {true, false}) {
    const Graph g = one_state(read_first);
    const NeedAnalysis needs = analyse_needs(g, {false});
    EXPECT_EQ(needs.frontier_reason[unit(g, "read")], "depends on state memory") << read_first;
    EXPECT_EQ(needs.frontier_reason[unit(g, "write")], "writes state memory");
    for (const Needs& n : needs.op_needs) EXPECT_FALSE(n.any());
  }
}

TEST(NeedsOfStates, AStateNobodyWritesIsAConstant) {
  Graph g(DType::kF32);
  const Value x = g.input("x", kSpec), state = g.state("memory", kSpec, true);
  auto scope = g.unit("read");
  add(g, x, state);
  EXPECT_TRUE(analyse_needs(g, {}).behind_frontier[0]);
}

TEST(NeedsOfStates, CarriesThroughChainsOfStatesReadBeforeTheyAreWritten) {
  Graph g(DType::kF32);
  const Value x = g.input("x", kSpec);
  std::vector<Value> states;
  for (int i = 0; i < 4; ++i) states.push_back(g.state(concat("s", i), kSpec, false));
  {
    auto scope = g.unit("far");
    add(g, x, states[3]);
  }
  for (size_t i = 3; i > 0; --i) {  // s3 from s2, then s2 from s1, then s1 from s0: three micro-batches away
    auto scope = g.unit(concat("link", i));
    g.write_state(states[i], add(g, x, states[i - 1]));
  }
  {
    auto scope = g.unit("source");
    g.write_state(states[0], add_param(g, x, g.param("table", {3, 4}, Initializer::zeros())));
  }
  {
    auto scope = g.unit("apart");
    add(g, x, x);
  }
  const NeedAnalysis needs = analyse_needs(g, {true});
  for (const char* name : {"far", "link1", "link2", "link3"})
    EXPECT_EQ(needs.frontier_reason[unit(g, name)], "depends on trainable table (unit source)") << name;
  EXPECT_EQ(needs.frontier_reason[unit(g, "source")], "trains table");
  EXPECT_TRUE(needs.behind_frontier[unit(g, "apart")]);
}

}  // namespace
}  // namespace permafrost
