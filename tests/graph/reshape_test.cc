#include "core/graph/ops/reshape.h"

#include "tests/graph/op_matrix.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

TEST(FreezingMatrix, Reshape) {
  check_freezing_matrix({"reshape",
                         [](Graph& g) {
                           reshape(g, g.input("x", {{2, 1, 7}, g.compute()}), {2, 7});
                         },
                         [](const std::vector<Duals>& x, const std::vector<Duals>&) { return x[0]; }, bit(0)});
}

TEST(Reshape, RefusesAnotherNumberOfElements) {
  Graph graph(DType::kF32);
  const Value x = graph.input("x", {{2, 1, 7}, DType::kF32});
  EXPECT_TRUE(throws_error(
      [&] {
        reshape(graph, x, {2, 8});
      },
      ErrorKind::kShapeMismatch, {"reshape: input must have the 16 elements of (2, 8)", "(2, 1, 7) f32"}));
}

}  // namespace
}  // namespace permafrost
