#include "core/graph/ops/joined_linear.h"

#include <cstring>

#include "core/graph/ops/linear.h"
#include "tests/graph/op_matrix.h"
#include "tests/reference/linear_ref.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

/// Parameters that lie together, as OpCase has them.
using Groups = std::vector<std::vector<size_t>>;

constexpr size_t kRows = 6, kWidth = 8, kColumns = 4;

Value joined_in(Graph& g, size_t parts, bool bias, const Shape& x = {2, 3, int64_t{kWidth}}) {
  const Value in = g.input("x", {x, g.compute()});
  std::vector<Param> weights, biases;
  for (size_t i = 0; i < parts; ++i)
    weights.push_back(g.param(concat("w", i), {int64_t{kColumns}, int64_t{kWidth}}, Initializer::zeros()));
  for (size_t i = 0; bias && i < parts; ++i)
    biases.push_back(g.param(concat("b", i), {int64_t{kColumns}}, Initializer::zeros()));
  return joined_linear(g, in, weights, biases);
}

/// `parts` separate layers, their columns side by side.
OpCase joined_case(const std::string& name, size_t parts, bool bias, const Groups& together) {
  OpCase result;
  result.name = name;
  result.build = [=](Graph& g) { joined_in(g, parts, bias); };
  result.reference = [=](const std::vector<Duals>& x, const std::vector<Duals>& p) {
    Duals y(kRows * parts * kColumns);
    for (size_t part = 0; part < parts; ++part) {
      const Duals some = reference::linear({kRows, kColumns, kWidth}, x[0], p[part], bias ? p[parts + part] : Duals{},
                                           Activation::kNone)
                             .y;
      for (size_t row = 0; row < kRows; ++row)
        for (size_t c = 0; c < kColumns; ++c) y[(row * parts + part) * kColumns + c] = some[row * kColumns + c];
    }
    return y;
  };
  result.differentiable_inputs = bit(0);
  result.together = together;
  return result;
}

TEST(FreezingMatrix, JoinedLinear) {
  check_freezing_matrix(joined_case("apart", 2, true, {}));
  check_freezing_matrix(joined_case("together", 2, true, {{0, 1}, {2, 3}}));
  check_freezing_matrix(joined_case("weights together, biases apart", 2, true, {{0, 1}}));
  check_freezing_matrix(joined_case("three without bias, apart", 3, false, {}));
  check_freezing_matrix(joined_case("three without bias, together", 3, false, {{0, 1, 2}}));
  check_freezing_matrix(joined_case("three without bias, two of them together", 3, false, {{0, 1}}));
}

/// An operation with memory for one run of each pass. Weights lie together or apart, and it is told so; so do biases.
struct OneUse {
  Graph graph;
  size_t parts;
  std::vector<OwnedTensor> memory;
  std::vector<Tensor> params;
  OwnedTensor x, y;
  BitMask adjoining = 0;

  OneUse(DType compute, size_t parts, bool weights_together, bool biases_together)
      : graph(compute), parts(parts), x(compute, Shape{int64_t{kRows}, int64_t{kWidth}}) {
    joined_in(graph, parts, true, {int64_t{kRows}, int64_t{kWidth}});
    y = filled_tensor(compute, specs().outputs[0].shape, 0xff);
    place(compute, {int64_t{kColumns}, int64_t{kWidth}}, weights_together);
    place(DType::kF32, {int64_t{kColumns}}, biases_together);
  }
  OpSpecs specs() const { return graph.specs_of(graph.ops()[0]); }
  const Op& op() const { return *graph.ops()[0].op; }
  void place(DType dtype, const Shape& shape, bool together) {
    const OwnedTensor values = random_tensor(dtype, {shape[0] * int64_t(parts), shape.elements() / shape[0]}, 5);
    if (together) memory.push_back(values);
    for (size_t i = 0; i < parts; ++i) {
      const auto rows = [&](const Tensor& all) {
        return all.rows(int64_t(i) * shape[0], int64_t(i + 1) * shape[0]).reshaped(shape);
      };
      if (together) {
        if (i > 0) adjoining |= bit(params.size());
        params.push_back(rows(memory.back()));
      } else {
        const Tensor one = memory.emplace_back(dtype, shape);
        std::memcpy(one.raw(), rows(values).raw(), static_cast<size_t>(one.bytes()));
        params.push_back(one);
      }
    }
  }
  void set(const Tensor& to, const std::vector<double>& values) const {
    const OwnedTensor from = make_tensor(to.dtype(), to.shape(), values);
    std::memcpy(to.raw(), from.view().raw(), static_cast<size_t>(to.bytes()));
  }
  OwnedTensor workspace(Pass pass, const Needs& needs) const {
    return filled_tensor(DType::kU8, {op().workspace_bytes(specs(), pass, needs, {1, used_device().kind})}, 0xff);
  }
  void forward() const {
    const std::vector<Tensor> in{x}, out{y};
    op().forward(device_context(), {in, params, out, {}, workspace(Pass::kForward, {}), adjoining});
    finish_kernels();
  }
  /// The gradient of x for gradients of y that are all `dy` in part 0 and `other` in the rest.
  std::vector<double> gradient_of_x(const std::vector<double>& dy) const {
    const OwnedTensor dx = filled_tensor(x.view().dtype(), x.view().shape(), 0xff);
    const OwnedTensor given = make_tensor(y.view().dtype(), y.view().shape(), dy);
    const std::vector<Tensor> undefined(1), douts{given}, dins{dx}, dparams(params.size());
    const std::vector<GradMode> mode(1, GradMode::kOverwrite), modes(params.size(), GradMode::kOverwrite);
    op().backward(device_context(), {undefined,
                                     params,
                                     undefined,
                                     {},
                                     douts,
                                     dins,
                                     mode,
                                     dparams,
                                     modes,
                                     workspace(Pass::kBackward, {bit(0), 0}),
                                     adjoining});
    finish_kernels();
    return values_of(dx);
  }
};

// FreezingMatrix by its name too, so that it runs on CUDA.
TEST(FreezingMatrix, JoinedLinearSumsTheGradientOfItsInputInOnePiece) {
  // 1 + 2 * 0.75 * 2^-8, rounded once or after each of two additions.
  const std::vector<double> expected_together(kRows * kWidth, 1 + 0x1p-7), expected_apart(kRows * kWidth, 1);
  struct Row {
    const char* name;
    bool touch;
    BitMask adjoining;
    bool joined;
  };
  for (const auto& [name, touch, adjoining, joined] : {Row{"together", true, 0b110, true},
                                                       {"apart", false, 0, false},
                                                       {"touch by chance", true, 0, false},
                                                       {"two of three together", true, 0b010, false}}) {
    OneUse use(DType::kBF16, 3, touch, touch);
    use.adjoining = adjoining;
    std::vector<double> dy(kRows * 3 * kColumns, 0);
    for (size_t row = 0; row < kRows; ++row)
      for (size_t part = 0; part < 3; ++part) dy[(row * 3 + part) * kColumns] = part == 0 ? 1 : 0.75 * 0x1p-8;
    for (size_t i = 0; i < 3; ++i) use.set(use.params[i], std::vector<double>(kColumns * kWidth, 1));
    EXPECT_EQ(use.gradient_of_x(dy), joined ? expected_together : expected_apart) << name;
  }
}

TEST(FreezingMatrix, JoinedLinearGivesOneResultWhereverItsBiasesLie) {
  for (const DType compute : tested_dtypes()) {
    const OneUse together(compute, 3, true, true), apart(compute, 3, true, false);
    for (const OneUse* use : {&together, &apart}) {
      const OwnedTensor x = random_tensor(compute, use->x.view().shape(), 3);
      std::memcpy(use->x.view().raw(), x.view().raw(), static_cast<size_t>(x.view().bytes()));
      use->forward();
    }
    EXPECT_TRUE(same_bits(together.y, apart.y)) << to_string(compute);
    if (used_device().kind == DeviceKind::kCpu || compute == DType::kF32) continue;
    // One bias of three is trainable: f32, beside copies of the others in the compute dtype.
    OneUse mixed(compute, 3, true, false);
    std::memcpy(mixed.x.view().raw(), apart.x.view().raw(), static_cast<size_t>(apart.x.view().bytes()));
    std::vector<OwnedTensor> copies;
    for (size_t i = 4; i < 6; ++i)
      mixed.params[i] = copies.emplace_back(make_tensor(compute, {int64_t{kColumns}}, values_of(mixed.params[i])));
    mixed.forward();
    EXPECT_TRUE(same_bits(mixed.y, apart.y)) << to_string(compute);
  }
}

TEST(JoinedLinear, GivesTheBitsOfSeparateLayersForwardOnCpu) {
  for (const bool together : {true, false})
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      const OneUse use(compute, 3, together, together);
      const OwnedTensor x = random_tensor(compute, use.x.view().shape(), 3);
      std::memcpy(use.x.view().raw(), x.view().raw(), static_cast<size_t>(x.view().bytes()));
      use.forward();
      for (size_t part = 0; part < 3; ++part) {
        Graph g(compute);
        const Value in = g.input("x", use.x.view().spec());
        linear(g, in, g.param("w", use.params[part].shape(), Initializer::zeros()),
               g.param("b", use.params[3 + part].shape(), Initializer::zeros()));
        const Op& op = *g.ops()[0].op;
        const OwnedTensor y = filled_tensor(compute, {int64_t{kRows}, int64_t{kColumns}}, 0xff);
        const OwnedTensor workspace =
            filled_tensor(DType::kU8, {op.workspace_bytes(g.specs_of(g.ops()[0]), Pass::kForward, {}, {})}, 0xff);
        const std::vector<Tensor> ins{use.x}, params{use.params[part], use.params[3 + part]}, outs{y};
        op.forward(cpu_context(), {ins, params, outs, {}, workspace});
        std::vector<double> columns;
        const std::vector<double> all = values_of(use.y);
        for (size_t row = 0; row < kRows; ++row)
          for (size_t c = 0; c < kColumns; ++c) columns.push_back(all[(row * 3 + part) * kColumns + c]);
        EXPECT_EQ(columns, values_of(y)) << "part " << part;
      }
    }
}

TEST(JoinedLinear, DeclaresWhatItReadsAndCosts) {
  Graph g(DType::kBF16);
  EXPECT_EQ(g.spec(joined_in(g, 3, true)), (TensorSpec{{2, 3, 12}, DType::kBF16}));
  const Op& op = *g.ops()[0].op;
  const BitMask weights = 0b000111, biases = 0b111000;
  EXPECT_EQ(op.wants_compute_dtype(), biases);
  EXPECT_EQ(op.backward_use({bit(0), 0}).params, weights);
  EXPECT_EQ(op.backward_use({bit(0), 0}).inputs, 0u);
  EXPECT_EQ(op.backward_use({0, bit(2)}).inputs, bit(0));
  EXPECT_EQ(op.backward_use({0, bit(2)}).params, 0u);
  EXPECT_EQ(op.backward_use({0, bit(4)}).inputs, 0u) << "a bias alone";
  EXPECT_TRUE(op.saved(g.specs_of(g.ops()[0]), {bit(0), weights}).empty());
  const OpFlops flops = op.flops(g.specs_of(g.ops()[0]));
  const double one = 2 * 6 * 8 * 4;
  EXPECT_EQ(flops.forward, 3 * one);
  EXPECT_EQ(flops.backward({bit(0), 0}), 3 * one);
  EXPECT_EQ(flops.backward({0, bit(1)}), one) << "one of three weights is trainable";
  EXPECT_EQ(flops.backward({bit(0), weights | biases}), 6 * one);
  EXPECT_EQ(flops.backward({0, bit(3)}), 0) << "sums of columns";

  Graph plain(DType::kF32);
  joined_in(plain, 2, false);
  EXPECT_EQ(plain.ops()[0].op->wants_compute_dtype(), 0u);
}

TEST(JoinedLinear, RefusesWeightsThatAreSaidToLieTogetherAndDoNot) {
  OneUse use(DType::kF32, 3, false, false);
  use.adjoining = 0b110;
  for (const bool forward : {true, false})
    EXPECT_TRUE(throws_error(
        [&] { forward ? use.forward() : void(use.gradient_of_x(std::vector<double>(kRows * 3 * kColumns))); },
        ErrorKind::kInvalidArgument,
        {"joined_linear: 3 weights of (4, 8) f32 were expected one behind the other, as the plan puts them"}));
}

TEST(JoinedLinear, RefusesWhatDoesNotFit) {
  const auto with = [](const Shape& x, const std::vector<Shape>& weights, const std::vector<Shape>& biases) {
    return [=] {
      Graph g(DType::kF32);
      const Value in = g.input("x", {x, DType::kF32});
      std::vector<Param> w, b;
      for (const Shape& shape : weights) w.push_back(g.param(concat("w", w.size()), shape, Initializer::zeros()));
      for (const Shape& shape : biases) b.push_back(g.param(concat("b", b.size()), shape, Initializer::zeros()));
      joined_linear(g, in, w, b);
    };
  };
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  EXPECT_TRUE(throws_error(with({2, 7}, {{4, 8}, {4, 8}}, {}), shape,
                           {"joined_linear: input must end in the K of weights (N, K) = (4, 8); got (2, 7) f32"}));
  EXPECT_TRUE(throws_error(with({2, 8}, {{4, 2, 4}, {4, 2, 4}}, {}), shape, {"weights (N, K) = (4, 2, 4)"}));
  EXPECT_TRUE(
      throws_error(with({2, 8}, {{4, 8}, {5, 8}}, {}), shape, {"joined_linear: weight 1 must be (4, 8); got (5, 8)"}));
  EXPECT_TRUE(
      throws_error(with({2, 8}, {{4, 8}, {4, 8}}, {{4}, {5}}), shape, {"joined_linear: bias 1 must be (4); got (5)"}));
  EXPECT_TRUE(throws_error(with({2, 8}, {{4, 8}, {4, 8}}, {{4}}), argument,
                           {"joined_linear: expected a bias for each of 2 weights, or none; got 1"}));
  EXPECT_TRUE(throws_error(with({2, 8}, {}, {}), argument, {"joined_linear: expected 1 to 16 weights; got 0"}));
}

}  // namespace
}  // namespace permafrost
