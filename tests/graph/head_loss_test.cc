#include "core/graph/ops/head_loss.h"

#include <cmath>
#include <optional>

#include "core/graph/ops/linear.h"
#include "tests/graph/op_matrix.h"
#include "tests/reference/cross_entropy_ref.h"
#include "tests/reference/linear_ref.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;
using Operands = std::vector<Duals>;

/// With a scale of 1, whose effect another test looks at.
OpCase head_loss_case(bool scaled) {
  return {
      scaled ? "head_loss, scaled" : "head_loss",
      [scaled](Graph& g) {
        const Value x = g.input("x", {{2, 3, 8}, g.compute()}), labels = g.input("labels", {{2, 3}, DType::kI32});
        const Param weight = g.param("head", {7, 8}, Initializer::zeros());
        const Value weights = g.input("row_weight", {{2, 3}, DType::kF32});
        head_loss(g, x, weight, labels, weights, 0.1f, scaled ? g.input("loss_scale", {{1}, DType::kF32}) : Value{});
      },
      [](const Operands& x, const Operands& p) {
        std::vector<int32_t> labels;
        for (const Dual& label : x[1]) labels.push_back(static_cast<int32_t>(label.value));
        const Duals logits = reference::linear({6, 7, 8}, x[0], p[0], Duals{}).y;
        const Duals loss = reference::cross_entropy(logits, labels, 7, static_cast<double>(0.1f));
        Dual sum;
        for (size_t r = 0; r < loss.size(); ++r) sum += x[2][r] * loss[r];
        return Duals{sum};
      },
      bit(0),
      {{1, {0, 6, -100, 3, 3, 2}}, {3, {1}}},
      1,
      true};
}

TEST(FreezingMatrix, HeadLoss) {
  check_freezing_matrix(head_loss_case(false));
  check_freezing_matrix(head_loss_case(true));
}

/// Everything that forward and backward of a graph's operations on (x, labels, row_weight) give.
struct Results {
  OwnedTensor row_loss, loss, dx, dweight;
};

OwnedTensor bytes(int64_t n) { return filled_tensor(DType::kU8, {n}, 0xff); }

struct Problem {
  DType compute;
  int64_t rows, width, vocabulary;
  OwnedTensor x, weight, labels, row_weight, loss_scale;  // the last one undefined: none

  Problem(DType dtype, int64_t m, int64_t k, int64_t v, std::optional<double> scale = std::nullopt)
      : compute(dtype),
        rows(m),
        width(k),
        vocabulary(v),
        x(random_tensor(dtype, {m, k}, 1)),
        weight(random_tensor(dtype, {v, k}, 2, 0.3)),
        labels(DType::kI32, {m}),
        row_weight(random_tensor(DType::kF32, {m}, 3)) {
    if (scale) loss_scale = make_tensor(DType::kF32, {1}, {*scale});
    for (int64_t row = 0; row < m; ++row)
      labels.view().data<int32_t>()[row] = row % 11 == 5 ? -100 : static_cast<int32_t>(row * 7 % v);
  }
  Value input(Graph& g, const char* name, const Tensor& t) const { return g.input(name, {t.shape(), t.dtype()}); }
  Value scale_input(Graph& g) const {
    return loss_scale.view().defined() ? input(g, "loss_scale", loss_scale) : Value{};
  }
  /// first, labels, weights, and the scale if there is one.
  std::vector<Tensor> inputs(const Tensor& first) const {
    std::vector<Tensor> all{first, labels, row_weight};
    if (loss_scale.view().defined()) all.push_back(loss_scale);
    return all;
  }
};

Results together(const Problem& p, const Needs& needs) {
  Graph g(p.compute);
  const Value x = p.input(g, "x", p.x), labels = p.input(g, "labels", p.labels);
  head_loss(g, x, g.param("head", {p.vocabulary, p.width}, Initializer::zeros()), labels,
            p.input(g, "row_weight", p.row_weight), 0.1f, p.scale_input(g));
  const Op& op = *g.ops()[0].op;
  const OpSpecs specs = g.specs_of(g.ops()[0]);
  Results r{filled_tensor(DType::kF32, {p.rows}, 0xff), filled_tensor(DType::kF64, {1}, 0xff), {}, {}};
  std::vector<OwnedTensor> saved;
  std::vector<Tensor> saved_views;
  for (const TensorSpec& spec : op.saved(specs, needs)) saved.push_back(filled_tensor(spec.dtype, spec.shape, 0xff));
  for (const OwnedTensor& t : saved) saved_views.push_back(t);
  const std::vector<Tensor> inputs = p.inputs(p.x), params{p.weight}, outputs{r.row_loss, r.loss};
  const OwnedTensor forward = bytes(op.workspace_bytes(specs, Pass::kForward, needs, {2, used_device().kind}));
  op.forward(device_context(2), {inputs, params, outputs, saved_views, forward});
  std::vector<Tensor> dinputs(inputs.size()), dparams(1), none(2);
  if (needs.inputs != 0) r.dx = filled_tensor(p.compute, {p.rows, p.width}, 0xff), dinputs[0] = r.dx;
  if (needs.params != 0) r.dweight = filled_tensor(DType::kF32, {p.vocabulary, p.width}, 0xff), dparams[0] = r.dweight;
  const std::vector<GradMode> modes(inputs.size(), GradMode::kOverwrite);
  const OwnedTensor backward = bytes(op.workspace_bytes(specs, Pass::kBackward, needs, {2, used_device().kind}));
  op.backward(device_context(2),
              {inputs, params, outputs, saved_views, none, dinputs, modes, dparams, modes, backward});
  return r;
}

/// The same by linear and cross_entropy.
Results apart(const Problem& p) {
  Results r{OwnedTensor(DType::kF32, {p.rows}), OwnedTensor(DType::kF64, {1}),
            OwnedTensor(p.compute, {p.rows, p.width}), OwnedTensor(DType::kF32, {p.vocabulary, p.width})};
  Graph g(p.compute);
  const Value x = p.input(g, "x", p.x), labels = p.input(g, "labels", p.labels);
  const Value logits =
      linear(g, x, g.param("head", {p.vocabulary, p.width}, Initializer::zeros()), {}, Activation::kNone, true);
  cross_entropy(g, logits, labels, p.input(g, "row_weight", p.row_weight), 0.1f, p.scale_input(g));
  const Op &head = *g.ops()[0].op, &loss = *g.ops()[1].op;
  const OpSpecs specs = g.specs_of(g.ops()[0]);
  const Needs both{bit(0), bit(0)};
  OwnedTensor y(DType::kF32, {p.rows, p.vocabulary}), lse(DType::kF32, {p.rows}), dy(p.compute, {p.rows, p.vocabulary});
  const OwnedTensor workspace =
      bytes(std::max(head.workspace_bytes(specs, Pass::kForward, both, {2, used_device().kind}),
                     head.workspace_bytes(specs, Pass::kBackward, both, {2, used_device().kind})));
  const std::vector<Tensor> inputs{p.x}, params{p.weight}, outputs{y}, dlogits{dy}, none(3);
  const std::vector<Tensor> loss_inputs = p.inputs(y), loss_outputs{r.row_loss, r.loss}, saved{lse},
                            dloss{dy, {}, {}, {}}, dinputs{r.dx}, dparams{r.dweight};
  const std::vector<GradMode> modes(4, GradMode::kOverwrite);
  const OwnedTensor of_loss =
      bytes(loss.workspace_bytes(g.specs_of(g.ops()[1]), Pass::kBackward, {bit(0), 0}, {2, used_device().kind}));
  head.forward(device_context(2), {inputs, params, outputs, {}, workspace});
  loss.forward(device_context(2), {loss_inputs, {}, loss_outputs, saved, {}});
  loss.backward(device_context(2), {loss_inputs, {}, loss_outputs, saved, none, dloss, modes, {}, {}, of_loss});
  head.backward(device_context(2), {inputs, params, outputs, {}, dlogits, dinputs, modes, dparams, modes, workspace});
  return r;
}

/// 1,100 rows are three chunks, the last one shorter.
TEST(HeadLoss, HasTheBitsOfTheTwoOperationsWhateverIsNeeded) {
  for (const DType compute : tested_dtypes())
    for (const int64_t rows : {0, 1, 512, 1100}) {
      SCOPED_TRACE(concat(to_string(compute), " rows ", rows));
      const Problem p(compute, rows, 24, 24);
      const Results want = apart(p);
      for (const Needs& needs : {Needs{}, Needs{bit(0), 0}, Needs{0, bit(0)}, Needs{bit(0), bit(0)}}) {
        const Results got = together(p, needs);
        const auto same = [&](const Tensor& a, const Tensor& b) {
          // A library's product of another number of rows may sum in another order: the bits are promised for CPUs.
          // Longest are the sums over rows, of terms of unit size: partial sums of about sqrt(rows), four deviations.
          if (used_device().kind == DeviceKind::kCpu || rows <= 512) return same_bits(a, b);
          return all_close(a, values_of(b), tolerance_for(a.dtype(), rows, 4.0 * std::sqrt(static_cast<double>(rows))));
        };
        EXPECT_TRUE(same(got.row_loss, want.row_loss) && same(got.loss, want.loss));
        EXPECT_TRUE(needs.inputs == 0 || same(got.dx, want.dx));
        EXPECT_TRUE(needs.params == 0 || same(got.dweight, want.dweight));
      }
    }
}

/// A power of two moves exponents of gradients and nothing else: bf16 and f32 have room for it, and in f16 numbers that
/// were below its normal ones get bits that they had lost.
TEST(HeadLoss, AScaleMultipliesGradientsAlone) {
  for (const DType compute : tested_dtypes())
    for (const double scale : {1.0, 0x1p-3, 0x1p4})
      for (const int64_t rows : {1, 700}) {
        SCOPED_TRACE(concat(to_string(compute), " rows ", rows, " scale ", scale));
        const Needs both{bit(0), bit(0)}, input{bit(0), 0};
        const Problem without(compute, rows, 24, 24), with(compute, rows, 24, 24, scale);
        const auto expect_scaled = [&](const Tensor& got, const Tensor& unscaled) {
          std::vector<double> want = values_of(unscaled);
          for (double& w : want) w *= scale;
          // Rounding of both in f16 below 2^-14, of single numbers and of the terms of sums of 24 or `rows` of them,
          // whose other factors are below 4.
          const double lost = 2 * 0x1p-25 * std::max(1.0, scale) * 4 * static_cast<double>(std::max<int64_t>(rows, 24));
          EXPECT_TRUE(
              all_close(got, want, {compute == DType::kF16 ? lost : 0.0, compute == DType::kF16 ? 0x1p-10 : 0}));
        };
        const Results plain = together(without, both), scaled = together(with, both), less = together(with, input);
        EXPECT_TRUE(same_bits(scaled.row_loss, plain.row_loss) && same_bits(scaled.loss, plain.loss));
        EXPECT_TRUE(same_bits(less.row_loss, plain.row_loss) && same_bits(less.loss, plain.loss));
        expect_scaled(scaled.dx, plain.dx);
        expect_scaled(scaled.dweight, plain.dweight);
        expect_scaled(less.dx, plain.dx);
        const Results two = apart(with);
        EXPECT_TRUE(same_bits(two.loss, plain.loss));
        expect_scaled(two.dx, plain.dx);
        expect_scaled(two.dweight, plain.dweight);
      }
}

/// 3,600 rows are seven chunks of 512 and one of 16, whose product takes another form and more workspace. In f16 sizes
/// are those of bf16.
TEST(HeadLoss, HasRoomForTheLastChunkToo) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const Problem p(compute, 3600, 64, 40000);
    const Results some = together(p, Needs{}), all = together(p, Needs{bit(0), 0});
    EXPECT_TRUE(same_bits(some.row_loss, all.row_loss) && same_bits(some.loss, all.loss));
  }
}

TEST(HeadLoss, NeedsNeitherLogitsNorTheFrozenWeightForBackward) {
  Graph g(DType::kBF16);
  const Value x = g.input("x", {{8000, 8}, DType::kBF16}), labels = g.input("labels", {{8000}, DType::kI32});
  head_loss(g, x, g.param("head", {5000, 8}, Initializer::zeros()), labels,
            g.input("row_weight", {{8000}, DType::kF32}), 0);
  const Op& op = *g.ops()[0].op;
  const OpSpecs specs = g.specs_of(g.ops()[0]);
  const Needs frozen{bit(0), 0};
  const BackwardUse use = op.backward_use(frozen);
  EXPECT_EQ(use.inputs | use.outputs | use.params, 0u);
  ASSERT_EQ(op.saved(specs, frozen).size(), 1u);
  EXPECT_EQ(op.saved(specs, frozen)[0], (TensorSpec{{8000, 8}, DType::kBF16}));
  EXPECT_EQ(op.workspace_bytes(specs, Pass::kBackward, frozen, 2), 0);
  // 512 rows of logits in f32 and of their gradients in bf16, and what products need.
  EXPECT_LT(op.workspace_bytes(specs, Pass::kForward, frozen, 2), 8000 * 5000 * 4 / 2);
  EXPECT_EQ(op.saved(specs, {bit(0), bit(0)})[0], (TensorSpec{{8000, 5000}, DType::kBF16}));
}

TEST(HeadLoss, RefusesWhatDoesNotFit) {
  const auto refused = [](const Shape& weight, const TensorSpec& labels, const TensorSpec& row_weight, float smoothing,
                          ErrorKind kind, const std::vector<std::string>& parts) {
    EXPECT_TRUE(throws_error(
        [&] {
          Graph g(DType::kF32);
          const Value x = g.input("x", {{2, 4, 6}, DType::kF32}), l = g.input("labels", labels);
          head_loss(g, x, g.param("head", weight, Initializer::zeros()), l, g.input("row_weight", row_weight),
                    smoothing);
        },
        kind, parts));
  };
  const TensorSpec labels{{8}, DType::kI32}, weights{{2, 4}, DType::kF32};
  const auto shape = ErrorKind::kShapeMismatch;
  refused({5, 7}, labels, weights, 0, shape,
          {"head_loss: input must end in the K of weight (V, K) = (5, 7)", "(2, 4, 6)"});
  refused({5, 2, 3}, labels, weights, 0, shape, {"weight (V, K) = (5, 2, 3)"});
  refused({5, 6}, {{7}, DType::kI32}, weights, 0, shape, {"head_loss: labels must be 8 elements of i32; got (7) i32"});
  refused({5, 6}, labels, {{8}, DType::kI32}, 0, shape,
          {"head_loss: row_weight must be 8 elements of f32; got (8) i32"});
  refused({5, 6}, labels, weights, 1.5f, ErrorKind::kInvalidArgument,
          {"head_loss: smoothing must lie in [0, 1); got 1.5"});
  EXPECT_TRUE(throws_error(
      [&] {
        Graph g(DType::kF32);
        const Value x = g.input("x", {{2, 4, 6}, DType::kF32}), l = g.input("labels", labels);
        head_loss(g, x, g.param("head", {5, 6}, Initializer::zeros()), l, g.input("row_weight", weights), 0,
                  g.input("loss_scale", {{2}, DType::kF32}));
      },
      shape, {"head_loss: loss_scale must be (1) f32; got (2) f32"}));
}

}  // namespace
}  // namespace permafrost
