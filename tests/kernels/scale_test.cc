#include "core/kernels/scale.h"

#include <cmath>

#include "tests/kernels/dtypes.h"
#include "tests/reference/shape_ops_ref.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class ScaleTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, ScaleTest, ::testing::Values(kCpu, Target::kCuda), target_name);

/// Room for what scale_backward asks for, filled with 0xff bytes.
OwnedTensor workspace_for(int64_t elements) {
  return filled_tensor(DType::kU8, {scale_workspace_bytes(elements)}, 0xff);
}

TEST_P(ScaleTest, ForwardAndBackward) {
  for (DType dtype : tested_dtypes())
    for (int64_t n : {0, 1, 7, 17, 16385, 50001})
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
        const auto x = random_tensor(dtype, {n}, 1), dy = random_tensor(dtype, {n}, 2);
        const auto factor = make_tensor(kF32, {1}, {-1.7f});
        const double f = values_of(factor)[0], unit = unit_of(dtype);
        auto y = filled_tensor(dtype, {n}, 0xff);
        scale_forward(device_context(2), x, factor, y);
        EXPECT_TRUE(all_close(y, reference::scale(values_of(x), f), {subnormal_of(dtype), unit + 0x1p-24}));

        auto dx = random_tensor(dtype, {n}, 3);
        auto dscale = make_tensor(kF32, {1}, {5});
        auto want_dx = reference::scale(values_of(dy), f);
        double want = reference::scale_gradient(values_of(x), values_of(dy));
        if (mode == GradMode::kAdd) {
          want_dx = reference::add(want_dx, values_of(dx));
          want += 5;
        }
        auto workspace = workspace_for(n);
        scale_backward(device_context(2), {dy, x, factor, dx, dscale, mode, mode}, workspace);
        EXPECT_TRUE(all_close(dx, want_dx, {2 * 0x1p-24 * 8, unit}));  // |values| < 8, two f32 roundings before storing
        // f64 sums rounded to f32, then at most one f32 addition.
        EXPECT_TRUE(all_close(dscale, {want}, {0x1p-24 * 2 * (std::abs(want) + 5), 0}));
        EXPECT_TRUE(y.canaries_intact() && dx.canaries_intact() && dscale.canaries_intact() &&
                    workspace.canaries_intact());
      }
}

TEST(Scale, GradientFormulasAgreeWithDuals) {
  const auto x = values_of(random_tensor(DType::kF64, {7}, 1)), dy = values_of(random_tensor(DType::kF64, {7}, 2));
  const std::vector<double> factor{0.6};
  EXPECT_TRUE(gradient_agrees(
      {reference::scale_gradient(x, dy)},
      [&](const auto& s) {
        using S = typename std::decay_t<decltype(s)>::value_type;
        return reference::scale(std::vector<S>(x.begin(), x.end()), s[0]);
      },
      factor, dy));
  EXPECT_TRUE(gradient_agrees(
      reference::scale(dy, 0.6),
      [&](const auto& v) {
        using S = typename std::decay_t<decltype(v)>::value_type;
        return reference::scale(v, S(0.6));
      },
      x, dy));
}

TEST_P(ScaleTest, EachGradientAlone) {
  const auto x = random_tensor(kF32, {40}, 1), dy = random_tensor(kF32, {40}, 2), factor = make_tensor(kF32, {1}, {2});
  OwnedTensor dx(kF32, {40}), dscale(kF32, {1});
  scale_backward(device_context(), {dy, Tensor(), factor, dx, Tensor()}, Tensor());  // frozen scale: no x, no workspace
  EXPECT_TRUE(all_close(dx, reference::scale(values_of(dy), 2.0), {}));
  scale_backward(device_context(), {dy, x, Tensor(), Tensor(), dscale}, workspace_for(40));
  EXPECT_TRUE(all_close(dscale, {reference::scale_gradient(values_of(x), values_of(dy))}, tolerance_for(kF32, 1, 1)));
  scale_backward(device_context(), {dy, x, factor, dy, dscale}, workspace_for(40));  // dx in the memory of dy
  EXPECT_TRUE(same_bits(dy, dx));
}

TEST_P(ScaleTest, SameBitsForAnyNumberOfThreadsAndNan) {
  const auto x = random_tensor(kBF16, {3, 30001}, 1), dy = random_tensor(kBF16, {3, 30001}, 2);
  std::vector<OwnedTensor> sums;
  for (int threads : {1, 2, 3}) {
    sums.emplace_back(kF32, Shape{1});
    scale_backward(device_context(threads), {dy, x, Tensor(), Tensor(), sums.back()}, workspace_for(90003));
    EXPECT_TRUE(same_bits(sums.back(), sums.front()));
  }
  x.view().data<bfloat16>()[77] = bfloat16(NAN);
  scale_backward(device_context(), {dy, x, Tensor(), Tensor(), sums.back()}, workspace_for(90003));
  EXPECT_TRUE(std::isnan(values_of(sums.back())[0]));
}

TEST_P(ScaleTest, Errors) {
  const Context c = device_context();
  const OwnedTensor x(kF32, {20000}), factor(kF32, {1}), dscale(kF32, {1});
  const auto shape = ErrorKind::kShapeMismatch;
  EXPECT_TRUE(throws_error([&] { scale_forward(c, x, x, x); }, shape,
                           {"scale_forward: scale must be (1) f32; got (20000) f32"}));
  EXPECT_TRUE(throws_error([&] { scale_forward(c, x, factor, factor); }, shape,
                           {"scale_forward: out must be (20000) f32; got (1) f32"}));
  EXPECT_TRUE(
      throws_error([&] { scale_forward(c, Tensor(), factor, x); }, shape, {"scale_forward: x must be", "got none"}));
  EXPECT_TRUE(throws_error(
      [&] {
        scale_backward(c, {x, x, factor, Tensor(), dscale}, OwnedTensor(DType::kU8, {8}));
      },
      shape, {"scale_backward: workspace must have 16 bytes; got 8"}));
  EXPECT_TRUE(throws_error(
      [&] {
        scale_backward(c, {x, factor, factor, Tensor(), dscale}, Tensor());
      },
      shape, {"scale_backward: x must be (20000)"}));
  EXPECT_TRUE(throws_error(
      [&] {
        scale_backward(c, {x, x, factor, dscale, Tensor()}, Tensor());
      },
      shape, {"scale_backward: dx must be (20000) f32"}));
}

}  // namespace
}  // namespace permafrost
