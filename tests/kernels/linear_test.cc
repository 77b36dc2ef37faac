#include "core/kernels/linear.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/linear_cpu.h"
#include "core/kernels/shape_ops.h"
#include "tests/kernels/dtypes.h"
#include "tests/kernels/linear_tolerance.h"
#include "tests/reference/linear_ref.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;
using reference::LinearSizes;

constexpr LinearPass kForward = LinearPass::kForward, kInput = LinearPass::kBackwardInput,
                     kWeight = LinearPass::kBackwardWeight;

struct Sizes {
  int64_t m, n, k;
  operator LinearSizes() const {  // NOLINT: the same three numbers
    return {static_cast<size_t>(m), static_cast<size_t>(n), static_cast<size_t>(k)};
  }
};

std::ostream& operator<<(std::ostream& out, const Sizes& s) {
  return out << "m=" << s.m << " n=" << s.n << " k=" << s.k;
}

/// Exactly as much as asked for, full of NaN, at an odd address.
OwnedTensor workspace_of(LinearPass pass, const Sizes& s, DType compute, DType weight, int threads) {
  const DeviceKind device = device_context().device.kind;
  return filled_tensor(kU8, {linear_workspace_bytes(pass, s.m, s.n, s.k, compute, weight, threads, device)}, 0xff);
}

/// Large tensors: some thousand random values over and over.
OwnedTensor repeated_tensor(DType dtype, const Shape& shape, uint64_t seed) {
  const auto some = values_of(random_tensor(dtype, {4099}, seed));
  std::vector<double> values(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = some[i % some.size()];
  return make_tensor(dtype, shape, values);
}

const std::vector<Sizes>& sizes() {
  static const std::vector<Sizes> all{{1, 1, 1},     {1, 17, 33},  {2, 15, 16},   {15, 2, 31},
                                      {16, 16, 32},  {17, 33, 15}, {31, 100, 2},  {33, 31, 100},
                                      {100, 33, 17}, {64, 64, 64}, {5, 130, 96},  {130, 49, 64},
                                      {32, 600, 80}, {20, 33, 48}, {300, 20, 40}, {70, 200, 160}};
  return all;
}

class LinearAtLevel : public KernelTest {
 protected:
  static void forward(const Context& context, const LinearForward& args, const Tensor& workspace) {
    on_cuda() ? linear_forward(context, args, workspace) : linear_forward_cpu(context, args, workspace, level());
  }
  static void backward_input(const Context& context, const LinearBackwardInput& args, const Tensor& workspace) {
    on_cuda() ? linear_backward_input(context, args, workspace)
              : linear_backward_input_cpu(context, args, workspace, level());
  }
  static void backward_weight(const Context& context, const LinearBackwardWeight& args, const Tensor& workspace) {
    on_cuda() ? linear_backward_weight(context, args, workspace)
              : linear_backward_weight_cpu(context, args, workspace, level());
  }
};
INSTANTIATE_TEST_SUITE_P(Targets, LinearAtLevel,
                         ::testing::Values(Target::kPortable, Target::kAvx512, Target::kAmx, Target::kCuda),
                         target_name);

class LinearTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, LinearTest, ::testing::Values(kCpu, Target::kCuda), target_name);

double largest_of(const std::vector<double>& values) {
  double most = 0;
  for (double value : values) most = std::max(most, std::abs(value));
  return most;
}

std::vector<double> activated(Activation kind, std::vector<double> values) {
  for (double& value : values) value = reference::activation(kind, value);
  return values;
}

TEST_P(LinearAtLevel, ForwardMatchesReference) {
  for (const Sizes& s : sizes())
    for (DType compute : tested_dtypes())
      for (DType stored : {kF32, compute}) {
        SCOPED_TRACE(concat(s, " compute ", to_string(compute), " y ", to_string(stored)));
        const auto x = random_tensor(compute, {s.m, s.k}, 1), weight = random_tensor(compute, {s.n, s.k}, 2);
        const auto bias = random_tensor(kF32, {s.n}, 3);
        const auto want = reference::linear(s, values_of(x), values_of(weight), values_of(bias), Activation::kGelu);
        OwnedTensor y(stored, {s.m, s.n}), pre(stored, {s.m, s.n});
        auto workspace = workspace_of(kForward, s, compute, compute, 2);
        forward(device_context(2), {x, weight, bias, y, pre, Activation::kGelu}, workspace);
        Tolerance of_pre = product_tolerance(stored, s.k);
        if (on_cuda() && stored != kF32) {
          // The bias is rounded to y's dtype before it is added, and the activation is that of the rounded sum.
          of_pre.absolute += unit_of(stored) * largest_of(values_of(bias));
          EXPECT_TRUE(all_close(y, activated(Activation::kGelu, values_of(pre)), tolerance_for(stored, 1, 1.0)));
        } else {
          EXPECT_TRUE(all_close(y, want.y, product_tolerance(stored, s.k)));
        }
        EXPECT_TRUE(all_close(pre, want.pre, of_pre));
        EXPECT_TRUE(y.canaries_intact() && pre.canaries_intact() && workspace.canaries_intact());
        forward(device_context(2), {x, weight, {}, y, {}}, workspace);
        EXPECT_TRUE(
            all_close(y, reference::linear(s, values_of(x), values_of(weight), {}).y, product_tolerance(stored, s.k)));
      }
}

TEST_P(LinearAtLevel, EveryActivationIsFused) {
  const Sizes s{40, 50, 32};
  for (DType dtype : tested_dtypes())
    for (Activation kind : {Activation::kNone, Activation::kGelu, Activation::kQuickGelu, Activation::kRelu,
                            Activation::kSquaredRelu, Activation::kTanh}) {
      SCOPED_TRACE(concat(to_string(kind), " ", to_string(dtype)));
      const auto x = random_tensor(dtype, {s.m, s.k}, 1), weight = random_tensor(dtype, {s.n, s.k}, 2, 0.2);
      const auto bias = random_tensor(kF32, {s.n}, 3);
      OwnedTensor y(kF32, {s.m, s.n});
      auto workspace = workspace_of(kForward, s, dtype, dtype, 1);
      forward(device_context(), {x, weight, bias, y, {}, kind}, workspace);
      const auto want = reference::linear(s, values_of(x), values_of(weight), values_of(bias), kind).y;
      // The slope of a squared ReLU at 4 is 8; all others' is about 1.
      Tolerance allowed = product_tolerance(kF32, s.k);
      allowed.absolute *= kind == Activation::kSquaredRelu ? 8 : 1.2;
      EXPECT_TRUE(all_close(y, want, allowed));
    }
}

TEST_P(LinearTest, TakesABiasInTheDtypeOfTheOutputOnAGpu) {
  const Sizes s{33, 48, 64};
  const auto x = random_tensor(kBF16, {s.m, s.k}, 1), weight = random_tensor(kBF16, {s.n, s.k}, 2);
  const auto bias = random_tensor(kF32, {s.n}, 3);
  OwnedTensor rounded(kBF16, {s.n}), y(kBF16, {s.m, s.n}), same(kBF16, {s.m, s.n});
  accumulate(device_context(), bias, rounded, GradMode::kOverwrite);
  auto workspace = workspace_of(kForward, s, kBF16, kBF16, 1);
  if (!on_cuda()) {
    EXPECT_TRUE(throws_error(
        [&] {
          linear_forward(device_context(), {x, weight, rounded, y, {}}, workspace);
        },
        ErrorKind::kShapeMismatch, {"bias", "f32", "bf16"}));
    return;
  }
  linear_forward(device_context(), {x, weight, bias, y, {}}, workspace);
  linear_forward(device_context(), {x, weight, rounded, same, {}}, workspace);
  EXPECT_TRUE(same_bits(y, same));
}

TEST_P(LinearAtLevel, InputGradientMatchesReference) {
  for (const Sizes& s : sizes())
    for (DType dtype : tested_dtypes())
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
        SCOPED_TRACE(concat(s, " ", to_string(dtype), " add ", mode == GradMode::kAdd));
        const auto dy = random_tensor(dtype, {s.m, s.n}, 1), weight = random_tensor(dtype, {s.n, s.k}, 2);
        auto dx = mode == GradMode::kAdd ? random_tensor(dtype, {s.m, s.k}, 3) : filled_tensor(dtype, {s.m, s.k}, 0xff);
        auto want = reference::linear_dx(s, values_of(dy), values_of(weight));
        Tolerance allowed = product_tolerance(dtype, s.n);
        // The library rounds the product to the dtype of dx before it adds.
        if (mode == GradMode::kAdd && on_cuda() && dtype != kF32) allowed.absolute += unit_of(dtype) * largest_of(want);
        if (mode == GradMode::kAdd) want = plus(want, values_of(dx));
        auto workspace = workspace_of(kInput, s, dtype, dtype, 2);
        backward_input(device_context(2), {dy, weight, dx, mode}, workspace);
        EXPECT_TRUE(all_close(dx, want, allowed));
        EXPECT_TRUE(dx.canaries_intact() && workspace.canaries_intact());
      }
}

TEST_P(LinearAtLevel, WeightGradientMatchesReference) {
  for (const Sizes& s : sizes())
    for (DType dtype : tested_dtypes())
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
        SCOPED_TRACE(concat(s, " ", to_string(dtype), " add ", mode == GradMode::kAdd));
        const auto x = random_tensor(dtype, {s.m, s.k}, 1), dy = random_tensor(dtype, {s.m, s.n}, 2);
        const bool add = mode == GradMode::kAdd;
        auto dweight = add ? random_tensor(kF32, {s.n, s.k}, 3) : filled_tensor(kF32, {s.n, s.k}, 0xff);
        auto dbias = add ? random_tensor(kF32, {s.n}, 4) : filled_tensor(kF32, {s.n}, 0xff);
        auto want = reference::linear_dweight(s, values_of(dy), values_of(x));
        auto want_bias = reference::linear_dbias(s, values_of(dy));
        if (add) want = plus(want, values_of(dweight)), want_bias = plus(want_bias, values_of(dbias));
        auto workspace = workspace_of(kWeight, s, dtype, kF32, 2);
        backward_weight(device_context(2), {x, dy, dweight, dbias, mode, mode}, workspace);
        EXPECT_TRUE(all_close(dweight, want, product_tolerance(kF32, s.m)));
        EXPECT_TRUE(all_close(dbias, want_bias, product_tolerance(kF32, s.m)));
        EXPECT_TRUE(dweight.canaries_intact() && dbias.canaries_intact() && workspace.canaries_intact());
      }
}

/// Sizes at which B is cut along R, and A is packed slab by slab.
TEST_P(LinearAtLevel, LongReductionsAndManyRows) {
  if (GetParam() == kCpu) GTEST_SKIP() << "the same schedule as the others, too slow at these sizes";
  for (DType dtype : tested_dtypes()) {
    SCOPED_TRACE(to_string(dtype));
    const Sizes along_r{37, 70, 11011};
    const auto dy = repeated_tensor(dtype, {along_r.m, along_r.k}, 1),
               weight = repeated_tensor(dtype, {along_r.k, along_r.n}, 2);
    OwnedTensor dx(dtype, {along_r.m, along_r.n});
    const Sizes turned{along_r.m, along_r.k, along_r.n};
    auto workspace = workspace_of(kInput, turned, dtype, dtype, 2);
    backward_input(device_context(2), {dy, weight, dx}, workspace);
    EXPECT_TRUE(all_close(dx, reference::linear_dx(turned, values_of(dy), values_of(weight)),
                          product_tolerance(dtype, along_r.k)));
    EXPECT_TRUE(workspace.canaries_intact());

    const Sizes slabs{3001, 3000, 3};
    const auto x = repeated_tensor(dtype, {slabs.m, slabs.k}, 3), dout = repeated_tensor(dtype, {slabs.m, slabs.n}, 4);
    OwnedTensor dweight(kF32, {slabs.n, slabs.k});
    auto workspace2 = workspace_of(kWeight, slabs, dtype, kF32, 2);
    backward_weight(device_context(2), {x, dout, dweight, {}}, workspace2);
    EXPECT_TRUE(all_close(dweight, reference::linear_dweight(slabs, values_of(dout), values_of(x)),
                          product_tolerance(kF32, slabs.m)));
    EXPECT_TRUE(workspace2.canaries_intact());
  }
}

TEST_P(LinearAtLevel, ResultsDoNotDependOnThreads) {
  for (const Sizes& s : {Sizes{33, 100, 70}, Sizes{400, 200, 96}, Sizes{1, 500, 64}})
    for (DType dtype : tested_dtypes()) {
      SCOPED_TRACE(concat(s, " ", to_string(dtype)));
      const auto x = random_tensor(dtype, {s.m, s.k}, 1), weight = random_tensor(dtype, {s.n, s.k}, 2);
      const auto dy = random_tensor(dtype, {s.m, s.n}, 3), bias = random_tensor(kF32, {s.n}, 4);
      std::vector<OwnedTensor> y, dx, dweight, dbias;
      for (int threads : {1, 2, 3}) {
        const Context context = device_context(threads);
        y.emplace_back(dtype, Shape{s.m, s.n});
        dx.emplace_back(dtype, Shape{s.m, s.k});
        dweight.emplace_back(kF32, Shape{s.n, s.k});
        dbias.emplace_back(kF32, Shape{s.n});
        forward(context, {x, weight, bias, y.back(), {}, Activation::kGelu},
                workspace_of(kForward, s, dtype, dtype, threads));
        backward_input(context, {dy, weight, dx.back()}, workspace_of(kInput, s, dtype, dtype, threads));
        backward_weight(context, {x, dy, dweight.back(), dbias.back()}, workspace_of(kWeight, s, dtype, kF32, threads));
        EXPECT_TRUE(same_bits(y[0], y.back()));
        EXPECT_TRUE(same_bits(dx[0], dx.back()));
        EXPECT_TRUE(same_bits(dweight[0], dweight.back()));
        EXPECT_TRUE(same_bits(dbias[0], dbias.back()));
      }
    }
}

/// The first rows of a large batch by themselves, in buffers elsewhere: few rows take another path through the code.
TEST_P(LinearAtLevel, RowsDoNotDependOnTheirNeighbours) {
  // On CUDA the library chooses its order by the whole shape: two results, each within half of this of the true one.
  const auto same = [&](const Tensor& few, const Tensor& rows, int64_t terms) {
    return on_cuda() ? all_close(few, values_of(rows), product_tolerance(few.dtype(), terms)) : same_bits(rows, few);
  };
  const int64_t all = 300;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{330, 96}, {47, 45}})
    for (DType dtype : tested_dtypes())
      for (int64_t rows : {1, 2, 17, 32, 100, 256, 257}) {
        SCOPED_TRACE(concat("rows ", rows, " n ", n, " k ", k, " ", to_string(dtype)));
        const auto x = random_tensor(dtype, {all, k}, 1), weight = random_tensor(dtype, {n, k}, 2);
        const auto dy = random_tensor(dtype, {all, n}, 3), bias = random_tensor(kF32, {n}, 4);
        OwnedTensor y(dtype, {all, n}), few_y(dtype, {rows, n}), dx(dtype, {all, k}), few_dx(dtype, {rows, k});
        const Context context = device_context(2);
        forward(context, {x, weight, bias, y, {}}, workspace_of(kForward, {all, n, k}, dtype, dtype, 2));
        forward(context, {x.view().rows(7, 7 + rows), weight, bias, few_y, {}},
                workspace_of(kForward, {rows, n, k}, dtype, dtype, 2));
        EXPECT_TRUE(same(few_y, y.view().rows(7, 7 + rows), k));
        backward_input(context, {dy, weight, dx}, workspace_of(kInput, {all, n, k}, dtype, dtype, 2));
        backward_input(context, {dy.view().rows(7, 7 + rows), weight, few_dx},
                       workspace_of(kInput, {rows, n, k}, dtype, dtype, 2));
        EXPECT_TRUE(same(few_dx, dx.view().rows(7, 7 + rows), n));
      }
}

TEST_P(LinearAtLevel, StoredWeightsUnderF32ComputeAreConvertedExactly) {
  for (const Sizes& s : {Sizes{3, 70, 45}, Sizes{300, 50, 64}})
    for (DType stored : {kBF16, kF16}) {
      SCOPED_TRACE(concat(s, " ", to_string(stored)));
      const auto x = random_tensor(kF32, {s.m, s.k}, 1), dy = random_tensor(kF32, {s.m, s.n}, 2);
      const auto weight = random_tensor(stored, {s.n, s.k}, 3), same = make_tensor(kF32, {s.n, s.k}, values_of(weight));
      OwnedTensor y(kF32, {s.m, s.n}), want_y(kF32, {s.m, s.n}), dx(kF32, {s.m, s.k}), want_dx(kF32, {s.m, s.k});
      const Context context = device_context();
      forward(context, {x, weight, {}, y, {}}, workspace_of(kForward, s, kF32, stored, 1));
      forward(context, {x, same, {}, want_y, {}}, workspace_of(kForward, s, kF32, kF32, 1));
      EXPECT_TRUE(same_bits(y, want_y));
      backward_input(context, {dy, weight, dx}, workspace_of(kInput, s, kF32, stored, 1));
      backward_input(context, {dy, same, want_dx}, workspace_of(kInput, s, kF32, kF32, 1));
      EXPECT_TRUE(same_bits(dx, want_dx));
    }
}

TEST_P(LinearAtLevel, NanReachesItsRowAndNoOther) {
  const Sizes s{20, 40, 50};
  for (DType dtype : tested_dtypes()) {
    auto x_values = values_of(random_tensor(dtype, {s.m, s.k}, 1));
    x_values[3 * 50 + 49] = std::numeric_limits<double>::quiet_NaN();
    const auto x = make_tensor(dtype, {s.m, s.k}, x_values), weight = random_tensor(dtype, {s.n, s.k}, 2);
    OwnedTensor y(dtype, {s.m, s.n}), dweight(kF32, {s.n, s.k});
    const auto dy = random_tensor(dtype, {s.m, s.n}, 3);
    for (Activation kind : {Activation::kGelu, Activation::kRelu}) {
      forward(device_context(), {x, weight, {}, y, {}, kind}, workspace_of(kForward, s, dtype, dtype, 1));
      const auto values = values_of(y);
      for (size_t i = 0; i < values.size(); ++i)
        EXPECT_EQ(std::isnan(values[i]), i / 40 == 3) << i << " " << to_string(kind);
    }
    backward_weight(device_context(), {x, dy, dweight, {}}, workspace_of(kWeight, s, dtype, kF32, 1));
    const auto gradient = values_of(dweight);
    for (size_t i = 0; i < gradient.size(); ++i) EXPECT_EQ(std::isnan(gradient[i]), i % 50 == 49) << i;
  }
}

TEST_P(LinearAtLevel, EmptySizes) {
  for (const Sizes& s : {Sizes{0, 3, 4}, Sizes{3, 0, 4}, Sizes{3, 4, 0}, Sizes{0, 0, 0}}) {
    SCOPED_TRACE(concat(s));
    for (DType dtype : tested_dtypes()) {
      OwnedTensor x(dtype, {s.m, s.k}), weight(dtype, {s.n, s.k}), dy(dtype, {s.m, s.n});
      const auto bias = random_tensor(kF32, {s.n}, 1);
      auto y = filled_tensor(kF32, {s.m, s.n}, 0xff), dx = filled_tensor(dtype, {s.m, s.k}, 0xff),
           dweight = filled_tensor(kF32, {s.n, s.k}, 0xff), dbias = filled_tensor(kF32, {s.n}, 0xff);
      const Context context = device_context(2);
      forward(context, {x, weight, bias, y, {}}, workspace_of(kForward, s, dtype, dtype, 2));
      backward_input(context, {dy, weight, dx}, workspace_of(kInput, s, dtype, dtype, 2));
      backward_weight(context, {x, dy, dweight, dbias}, workspace_of(kWeight, s, dtype, kF32, 2));
      for (int64_t i = 0; i < s.m * s.n; ++i)
        EXPECT_EQ(values_of(y)[static_cast<size_t>(i)], values_of(bias)[static_cast<size_t>(i % s.n)]);
      for (double value : values_of(dx)) EXPECT_EQ(value, 0.0);
      for (double value : values_of(dweight)) EXPECT_EQ(value, 0.0);
      for (double value : values_of(dbias)) EXPECT_EQ(value, 0.0);
    }
  }
}

TEST(Linear, ReferenceGradientsAgreeWithDualNumbers) {
  const LinearSizes s{3, 4, 5};
  const auto x = values_of(random_tensor(DType::kF64, {3, 5}, 1)),
             weight = values_of(random_tensor(DType::kF64, {4, 5}, 2));
  const auto bias = values_of(random_tensor(DType::kF64, {4}, 3)),
             dy = values_of(random_tensor(DType::kF64, {3, 4}, 4));
  const auto duals = [](const std::vector<double>& v) { return std::vector<Dual>(v.begin(), v.end()); };
  const Activation kind = Activation::kGelu;
  const auto pre = reference::linear(s, x, weight, bias).pre;
  std::vector<double> dpre;
  for (size_t i = 0; i < dy.size(); ++i) dpre.push_back(dy[i] * reference::activation_slope(kind, pre[i]));
  EXPECT_TRUE(gradient_agrees(
      reference::linear_dx(s, dpre, weight),
      [&](const std::vector<Dual>& v) { return reference::linear(s, v, duals(weight), duals(bias), kind).y; }, x, dy));
  EXPECT_TRUE(gradient_agrees(
      reference::linear_dweight(s, dpre, x),
      [&](const std::vector<Dual>& v) { return reference::linear(s, duals(x), v, duals(bias), kind).y; }, weight, dy));
  EXPECT_TRUE(gradient_agrees(
      reference::linear_dbias(s, dpre),
      [&](const std::vector<Dual>& v) { return reference::linear(s, duals(x), duals(weight), v, kind).y; }, bias, dy));
}

TEST_P(LinearTest, SmallNumbersByHand) {
  const auto x = make_tensor(kF32, {2, 2}, {1, 2, 3, 4}), weight = make_tensor(kF32, {1, 2}, {10, 100});
  const auto bias = make_tensor(kF32, {1}, {-211}), dy = make_tensor(kF32, {2, 1}, {1, 2});
  OwnedTensor y(kF32, {2, 1}), pre(kF32, {2, 1}), dx(kF32, {2, 2}), dweight(kF32, {1, 2}), dbias(kF32, {1});
  const Context context = device_context();
  linear_forward(context, {x, weight, bias, y, pre, Activation::kRelu},
                 workspace_of(kForward, {2, 1, 2}, kF32, kF32, 1));
  EXPECT_EQ(values_of(pre), (std::vector<double>{-1, 219}));
  EXPECT_EQ(values_of(y), (std::vector<double>{0, 219}));
  linear_backward_input(context, {dy, weight, dx}, workspace_of(kInput, {2, 1, 2}, kF32, kF32, 1));
  EXPECT_EQ(values_of(dx), (std::vector<double>{10, 100, 20, 200}));
  linear_backward_weight(context, {x, dy, dweight, dbias}, workspace_of(kWeight, {2, 1, 2}, kF32, kF32, 1));
  EXPECT_EQ(values_of(dweight), (std::vector<double>{7, 10}));
  EXPECT_EQ(values_of(dbias), (std::vector<double>{3}));
}

/// Freezing: what is not asked for is not needed either.
TEST_P(LinearTest, FrozenParametersNeedNothing) {
  const Sizes s{6, 7, 8};
  const auto x = random_tensor(kF32, {s.m, s.k}, 1), dy = random_tensor(kF32, {s.m, s.n}, 2);
  OwnedTensor both_weight(kF32, {s.n, s.k}), both_bias(kF32, {s.n}), dweight(kF32, {s.n, s.k}), dbias(kF32, {s.n});
  const Context context = device_context();
  const auto workspace = workspace_of(kWeight, s, kF32, kF32, 1);
  linear_backward_weight(context, {x, dy, both_weight, both_bias}, workspace);
  linear_backward_weight(context, {x, dy, dweight, {}}, workspace);
  linear_backward_weight(context, {{}, dy, {}, dbias}, {});  // neither x nor a workspace
  linear_backward_weight(context, {{}, dy, {}, {}}, {});
  EXPECT_TRUE(same_bits(dweight, both_weight));
  EXPECT_TRUE(same_bits(dbias, both_bias));
  EXPECT_TRUE(dweight.canaries_intact() && dbias.canaries_intact());
}

TEST_P(LinearTest, AddedGradientIsTheOverwrittenOnePlusWhatWasThere) {
  const Sizes s{50, 40, 70};
  const auto x = random_tensor(kBF16, {s.m, s.k}, 1), dy = random_tensor(kBF16, {s.m, s.n}, 2);
  auto fresh = filled_tensor(kF32, {s.n, s.k}, 0xff), added = random_tensor(kF32, {s.n, s.k}, 3);
  const auto before = added;
  const auto workspace = workspace_of(kWeight, s, kBF16, kF32, 1);
  linear_backward_weight(device_context(), {x, dy, fresh, {}}, workspace);
  const auto old = values_of(random_tensor(kF32, {s.n, s.k}, 3)), sum = values_of(fresh);
  linear_backward_weight(device_context(), {x, dy, added, {}, GradMode::kAdd, GradMode::kAdd}, workspace);
  for (size_t i = 0; i < sum.size(); ++i)
    ASSERT_EQ(values_of(added)[i], static_cast<double>(static_cast<float>(old[i]) + static_cast<float>(sum[i])));
}

TEST(Linear, WorkspaceGrowsWithThreadsAndIsAlwaysKnown) {
  for (LinearPass pass : {kForward, kInput, kWeight})
    for (DType dtype : {kF32, kBF16}) {
      EXPECT_EQ(linear_workspace_bytes(pass, 3152, 768, 768, dtype, dtype, 2),
                linear_workspace_bytes(pass, 3152, 768, 768, dtype, dtype, 2));
      EXPECT_GT(linear_workspace_bytes(pass, 3152, 768, 768, dtype, dtype, 2),
                linear_workspace_bytes(pass, 3152, 768, 768, dtype, dtype, 1));
      EXPECT_EQ(linear_workspace_bytes(pass, 0, 0, 0, dtype, dtype, 2), 0);
    }
  EXPECT_TRUE(throws_error([] { linear_workspace_bytes(kForward, -1, 2, 3, kF32, kF32, 1); },
                           ErrorKind::kInvalidArgument, {"linear_workspace_bytes", "m=-1 n=2 k=3 threads=1"}));
  EXPECT_TRUE(throws_error([] { linear_workspace_bytes(kForward, 1, 2, 3, kF32, kF32, 0); },
                           ErrorKind::kInvalidArgument, {"threads=0"}));
}

class LinearErrors : public KernelTest {
 protected:
  void SetUp() override {
    KernelTest::SetUp();
    if (IsSkipped()) return;
    context_ = device_context(1);
    workspace_ = OwnedTensor(kU8, {1 << 23});
    x_ = OwnedTensor(kF32, {2, 3}), weight_ = OwnedTensor(kF32, {4, 3}), y_ = OwnedTensor(kF32, {2, 4});
    half_x_ = OwnedTensor(kBF16, {2, 3}), half_weight_ = OwnedTensor(kBF16, {4, 3});
    half_y_ = OwnedTensor(kBF16, {2, 4}), wrong_ = OwnedTensor(kF32, {5, 5}), vector_ = OwnedTensor(kF32, {5});
  }
  void refuse_forward(const LinearForward& args, const std::vector<std::string>& parts,
                      ErrorKind kind = ErrorKind::kShapeMismatch) {
    EXPECT_TRUE(throws_error([&] { linear_forward(context_, args, workspace_); }, kind, parts));
    EXPECT_TRUE(throws_error([&] { tune_linear(context_, args, workspace_); }, kind, parts));
  }
  void refuse_input(const LinearBackwardInput& args, const std::vector<std::string>& parts) {
    const ErrorKind kind = ErrorKind::kShapeMismatch;
    EXPECT_TRUE(throws_error([&] { linear_backward_input(context_, args, workspace_); }, kind, parts));
    EXPECT_TRUE(throws_error([&] { tune_linear(context_, args, workspace_); }, kind, parts));
  }
  void refuse_weight(const LinearBackwardWeight& args, const std::vector<std::string>& parts) {
    const ErrorKind kind = ErrorKind::kShapeMismatch;
    EXPECT_TRUE(throws_error([&] { linear_backward_weight(context_, args, workspace_); }, kind, parts));
    EXPECT_TRUE(throws_error([&] { tune_linear(context_, args, workspace_); }, kind, parts));
  }
  /// Of activations.
  static std::string dtypes() { return on_cuda() ? "f32, bf16 or f16" : "f32 or bf16"; }
  Context context_;
  OwnedTensor workspace_, x_, weight_, y_, half_x_, half_weight_, half_y_, wrong_, vector_;
};
INSTANTIATE_TEST_SUITE_P(Targets, LinearErrors, ::testing::Values(kCpu, Target::kCuda), target_name);

TEST_P(LinearErrors, Forward) {
  refuse_forward({{}, weight_, {}, y_, {}}, {"linear_forward: x must be (M, K) ", dtypes(), "; got none"});
  refuse_forward({vector_, weight_, {}, y_, {}}, {"x must be (M, K)", "got (5) f32"});
  refuse_forward({OwnedTensor(DType::kF64, {2, 3}), weight_, {}, y_, {}}, {"x must be", "got (2, 3) f64"});
  if (!on_cuda()) refuse_forward({OwnedTensor(kF16, {2, 3}), weight_, {}, y_, {}}, {"x must be", "got (2, 3) f16"});
  refuse_forward({x_, {}, {}, y_, {}}, {"weight must be (N, K)", "got none"});
  refuse_forward({x_, vector_, {}, y_, {}}, {"weight must be (N, K)", "got (5) f32"});
  refuse_forward({x_, OwnedTensor(kF32, {4, 2}), {}, y_, {}}, {"weight must be (4, 3)", "got (4, 2) f32"});
  refuse_forward({half_x_, weight_, {}, half_y_, {}}, {"weight must be (4, 3) bf16", "got (4, 3) f32"});
  refuse_forward({x_, weight_, vector_, y_, {}}, {"bias must be (4) f32", "got (5) f32"});
  refuse_forward({x_, weight_, OwnedTensor(kBF16, {4}), y_, {}}, {"bias must be (4) f32", "got (4) bf16"});
  refuse_forward({x_, weight_, {}, {}, {}}, {"y must be (2, 4) f32", "got none"});
  refuse_forward({x_, weight_, {}, wrong_, {}}, {"y must be (2, 4) f32", "got (5, 5) f32"});
  refuse_forward({x_, weight_, {}, half_y_, {}}, {"y must be (2, 4) f32", "got (2, 4) bf16"});
  refuse_forward({x_, weight_, {}, y_, wrong_}, {"pre must be (2, 4) f32", "got (5, 5) f32"});
  refuse_forward({half_x_, half_weight_, {}, half_y_, y_}, {"pre must be (2, 4) bf16", "got (2, 4) f32"});
  Tensor elsewhere(nullptr, kF32, {2, 4}, Device::cuda(1));
  refuse_forward({x_, weight_, {}, elsewhere, {}},
                 {on_cuda() ? "y must be on device cuda:0" : "y must be on device cpu:0", "got cuda:1"});
  workspace_ = OwnedTensor(kU8, {10});
  refuse_forward({x_, weight_, {}, y_, {}},
                 {"linear_forward: workspace must have", on_cuda() ? "bytes; got 10" : "bytes for 1 threads; got 10"},
                 ErrorKind::kInvalidArgument);
  workspace_ = OwnedTensor(kF32, {10});
  refuse_forward({x_, weight_, {}, y_, {}}, {"workspace must be", "u8"});
}

TEST_P(LinearErrors, BackwardInput) {
  refuse_input({{}, weight_, x_}, {"linear_backward_input: dy must be (M, N) ", dtypes(), "; got none"});
  refuse_input({wrong_, weight_, x_}, {"weight must be (5, 3) f32, bf16 or f16", "got (4, 3) f32"});
  refuse_input({y_, {}, x_}, {"weight must be (N, K)", "got none"});
  refuse_input({half_y_, weight_, half_x_}, {"weight must be (4, 3) bf16", "got (4, 3) f32"});
  refuse_input({y_, weight_, {}}, {"dx must be (2, 3) f32", "got none"});
  refuse_input({y_, weight_, wrong_}, {"dx must be (2, 3) f32", "got (5, 5) f32"});
  refuse_input({y_, weight_, half_x_}, {"dx must be (2, 3) f32", "got (2, 3) bf16"});
  workspace_ = {};
  refuse_input({y_, weight_, x_}, {"linear_backward_input: workspace must be", "got none"});
}

TEST_P(LinearErrors, BackwardWeight) {
  refuse_weight({x_, {}, weight_, {}}, {"linear_backward_weight: dy must be (M, N) ", dtypes(), "; got none"});
  refuse_weight({{}, y_, weight_, {}}, {"x must be (M, K) f32", "got none"});
  refuse_weight({half_x_, y_, weight_, {}}, {"x must be (M, K) f32", "got (2, 3) bf16"});
  refuse_weight({wrong_, y_, weight_, {}}, {"x must be (2, 5) f32", "got (5, 5) f32"});
  refuse_weight({x_, y_, wrong_, {}}, {"dweight must be (4, 3) f32", "got (5, 5) f32"});
  refuse_weight({half_x_, half_y_, half_weight_, {}}, {"dweight must be (4, 3) f32", "got (4, 3) bf16"});
  refuse_weight({x_, y_, weight_, vector_}, {"dbias must be (4) f32", "got (5) f32"});
  workspace_ = {};
  refuse_weight({x_, y_, weight_, {}}, {"linear_backward_weight: workspace must be", "got none"});
}

}  // namespace
}  // namespace permafrost
