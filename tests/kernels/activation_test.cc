#include "core/kernels/activation.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/activation_cpu.h"
#include "tests/kernels/dtypes.h"
#include "tests/reference/activation_ref.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr Activation kAll[] = {Activation::kNone, Activation::kGelu,        Activation::kQuickGelu,
                               Activation::kRelu, Activation::kSquaredRelu, Activation::kTanh};

class ActivationTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, ActivationTest, ::testing::Values(Target::kPortable, Target::kAvx512, Target::kCuda),
                         target_name);

std::vector<double> apply(Activation activation, std::vector<double> x) {
  for (double& value : x) value = reference::activation(activation, value);
  return x;
}

/// What backward wants kept, for input x.
OwnedTensor kept_for(Activation activation, const Tensor& x) {
  return activation_keeps_output(activation) ? make_tensor(x.dtype(), x.shape(), apply(activation, values_of(x)))
                                             : make_tensor(x.dtype(), x.shape(), values_of(x));
}

/// The wanted gradient from what was kept (an output is rounded: the slope must come from the rounded one).
std::vector<double> wanted_gradient(Activation activation, const std::vector<double>& kept,
                                    const std::vector<double>& dy) {
  std::vector<double> dx(dy);
  for (size_t i = 0; i < dx.size(); ++i)
    dx[i] *=
        activation == Activation::kTanh ? 1.0 - kept[i] * kept[i] : reference::activation_slope(activation, kept[i]);
  return dx;
}

// A few roundings of f32, beside that of the result; where terms cancel, relative to them (magnitude 1).
Tolerance tolerance(DType dtype) {
  Tolerance t = tolerance_for(dtype, 1, 1.0);
  t.relative += 0x1p-21;
  return t;
}

TEST(Activation, SlopesAgreeWithDuals) {
  for (Activation activation : kAll) {
    const std::vector<double> x{-9.0, -2.5, -0.7, -1e-3, 1e-3, 0.4, 1.9, 6.0}, ones(x.size(), 1.0);
    std::vector<double> slopes;
    for (double value : x) slopes.push_back(reference::activation_slope(activation, value));
    EXPECT_TRUE(gradient_agrees(
        slopes,
        [&](auto values) {
          for (auto& value : values) value = reference::activation(activation, value);
          return values;
        },
        x, ones))
        << to_string(activation);
  }
}

TEST_P(ActivationTest, AgreesWithGoldens) {
  const Golden golden("activations.safetensors");
  for (const std::string& name : golden.cases()) {
    Activation activation = Activation::kNone;
    for (Activation candidate : kAll)
      if (to_string(candidate) == name) activation = candidate;
    ASSERT_NE(activation, Activation::kNone) << name;
    const auto x = golden.tensor(name + ".x"), dy = golden.tensor(name + ".dy");
    auto y = filled_tensor(DType::kF32, x.view().shape(), 0xff),
         dx = filled_tensor(DType::kF32, x.view().shape(), 0xff);
    activation_forward_at(level(), device_context(), activation, x, y);
    EXPECT_TRUE(all_close(y, golden.values(name + ".y"), tolerance(DType::kF32))) << name;
    activation_backward_at(level(), device_context(), activation, activation_keeps_output(activation) ? y : x, dy, dx,
                           GradMode::kOverwrite);
    EXPECT_TRUE(all_close(dx, golden.values(name + ".dx"), tolerance(DType::kF32))) << name;
  }
}

TEST_P(ActivationTest, GeluKeepsItsTail) {
  // x Phi(x) below 0 by the upper tail itself, which has relative accuracy; the plain formula would give 0 from -5.5
  // on.
  std::vector<double> x;
  for (double value = -7.5; value < 0; value += 0.01) x.push_back(static_cast<float>(value));
  const auto in = make_tensor(DType::kF32, {static_cast<int64_t>(x.size())}, x);
  auto out = filled_tensor(DType::kF32, in.view().shape(), 0);
  activation_forward_at(level(), device_context(), Activation::kGelu, in, out);
  const auto got = values_of(out);
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = 0.5 * x[i] * std::erfc(-x[i] / std::numbers::sqrt2);
    // A relative error of the tail is an error of its exponent: a sum of terms that together are about x^2 large, four
    // roundings of which are let pass.
    EXPECT_LE(std::abs(got[i] / want - 1.0), (2.0 + 2.0 * x[i] * x[i]) * 0x1p-23) << x[i];
  }
}

TEST_P(ActivationTest, ForwardAndBackwardAtEverySize) {
  for (Activation activation : kAll)
    for (DType dtype : tested_dtypes())
      for (int64_t n : {0, 1, 15, 16, 17, 100, 16384, 16384 + 33}) {
        const auto x = random_tensor(dtype, {n}, 3, 2.0), dy = random_tensor(dtype, {n}, 4);
        auto y = filled_tensor(dtype, {n}, 0xff), dx = filled_tensor(dtype, {n}, 0xff);
        activation_forward_at(level(), device_context(2), activation, x, y);
        EXPECT_TRUE(all_close(y, apply(activation, values_of(x)), tolerance(dtype))) << to_string(activation) << n;
        const auto kept = kept_for(activation, x);
        activation_backward_at(level(), device_context(2), activation, kept, dy, dx, GradMode::kOverwrite);
        const auto want = wanted_gradient(activation, values_of(kept), values_of(dy));
        EXPECT_TRUE(all_close(dx, want, tolerance(dtype))) << to_string(activation) << n;
        EXPECT_TRUE(y.canaries_intact() && dx.canaries_intact());
      }
}

TEST_P(ActivationTest, AddsWhenAsked) {
  for (Activation activation : kAll)
    for (DType dtype : tested_dtypes()) {
      const auto x = random_tensor(dtype, {77}, 3), dy = random_tensor(dtype, {77}, 4);
      auto dx = random_tensor(dtype, {77}, 5);
      const auto base = values_of(dx), kept_values = values_of(kept_for(activation, x));
      activation_backward_at(level(), device_context(), activation, kept_for(activation, x), dy, dx, GradMode::kAdd);
      std::vector<double> want = wanted_gradient(activation, kept_values, values_of(dy));
      for (size_t i = 0; i < want.size(); ++i) want[i] += base[i];
      EXPECT_TRUE(all_close(dx, want, tolerance_for(dtype, 2, 8.0))) << to_string(activation);
    }
}

TEST_P(ActivationTest, InPlaceGivesTheSameBits) {
  for (Activation activation : kAll)
    for (DType dtype : tested_dtypes()) {
      const auto x = random_tensor(dtype, {3, 41}, 3), dy = random_tensor(dtype, {3, 41}, 4);
      auto y = filled_tensor(dtype, {3, 41}, 0), in_place = make_tensor(dtype, {3, 41}, values_of(x));
      activation_forward_at(level(), device_context(), activation, x, y);
      activation_forward_at(level(), device_context(), activation, in_place, in_place);
      EXPECT_TRUE(same_bits(y, in_place));
      auto dx = filled_tensor(dtype, {3, 41}, 0), over = make_tensor(dtype, {3, 41}, values_of(dy));
      const auto kept = kept_for(activation, x);
      activation_backward_at(level(), device_context(), activation, kept, dy, dx, GradMode::kOverwrite);
      activation_backward_at(level(), device_context(), activation, kept, over, over, GradMode::kOverwrite);
      EXPECT_TRUE(same_bits(dx, over));
    }
}

TEST_P(ActivationTest, SameBitsForAnyThreadsAndAlignment) {
  constexpr int64_t kN = 50001;
  for (Activation activation : kAll)
    for (DType dtype : tested_dtypes()) {
      const auto x = random_tensor(dtype, {kN}, 3);
      auto one = filled_tensor(dtype, {kN}, 0), many = filled_tensor(dtype, {kN}, 0xff);
      activation_forward_at(level(), device_context(1), activation, x, one);
      for (int threads : {2, 3}) {
        activation_forward_at(level(), device_context(threads), activation, x, many);
        EXPECT_TRUE(same_bits(one, many));
      }
      // The same values one element further.
      OwnedTensor shifted_memory(dtype, {kN + 1}), result_memory(dtype, {kN + 1});
      const Tensor shifted = shifted_memory.view().rows(1, kN + 1), result = result_memory.view().rows(1, kN + 1);
      std::memcpy(shifted.raw(), x.view().raw(), static_cast<size_t>(shifted.bytes()));
      activation_forward_at(level(), device_context(2), activation, shifted, result);
      EXPECT_TRUE(same_bits(one, result));
    }
}

TEST_P(ActivationTest, NanStaysNanAndExtremesStayFinite) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (Activation activation : kAll)
    for (DType dtype : tested_dtypes()) {
      const double large = dtype == kF16 ? 200.0 : 1e4;  // f16 holds no square of 256
      const auto x = make_tensor(dtype, {5}, {kNan, 1.0, -large, large, 0.0});
      const auto dy = make_tensor(dtype, {5}, {1.0, kNan, 1.0, 1.0, 1.0});
      auto y = filled_tensor(dtype, {5}, 0), dx = filled_tensor(dtype, {5}, 0);
      activation_forward_at(level(), device_context(), activation, x, y);
      activation_backward_at(level(), device_context(), activation, activation_keeps_output(activation) ? y : x, dy, dx,
                             GradMode::kOverwrite);
      const auto values = values_of(y), gradients = values_of(dx);
      EXPECT_TRUE(std::isnan(values[0])) << to_string(activation);
      EXPECT_TRUE(std::isnan(gradients[1])) << to_string(activation);
      // The gradient of relu branches on its kept output and passes dy where that is NaN, as PyTorch's does.
      EXPECT_EQ(std::isnan(gradients[0]), activation != Activation::kNone && activation != Activation::kRelu);
      for (size_t i = 1; i < 5; ++i) EXPECT_TRUE(std::isfinite(values[i])) << to_string(activation);
      for (size_t i = 2; i < 5; ++i) EXPECT_TRUE(std::isfinite(gradients[i])) << to_string(activation);
    }
}

TEST(Activation, WhatBackwardKeeps) {
  for (Activation activation : kAll)
    EXPECT_EQ(activation_keeps_output(activation), activation == Activation::kRelu || activation == Activation::kTanh);
}

TEST(Activation, Errors) {
  const auto x = random_tensor(DType::kF32, {2, 3}, 1), other = random_tensor(DType::kF32, {3, 2}, 1);
  const auto half = random_tensor(DType::kBF16, {2, 3}, 1), f16 = random_tensor(DType::kF16, {2, 3}, 1);
  const Context cpu = device_context();
  const auto forward = [&](Tensor a, Tensor b) { return [=] { activation_forward(cpu, Activation::kGelu, a, b); }; };
  const ErrorKind shape = ErrorKind::kShapeMismatch;
  EXPECT_TRUE(throws_error(forward({}, x), shape, {"activation_forward: x must be", "f32 or bf16", "got none"}));
  EXPECT_TRUE(throws_error(forward(f16, f16), shape, {"activation_forward: x must be", "got (2, 3) f16"}));
  EXPECT_TRUE(throws_error(forward(x, other), shape, {"activation_forward: y must be (2, 3) f32", "got (3, 2) f32"}));
  EXPECT_TRUE(throws_error(forward(x, half), shape, {"y must be (2, 3) f32", "got (2, 3) bf16"}));
  const auto backward = [&](Tensor a, Tensor b, Tensor c) {
    return [=] { activation_backward(cpu, Activation::kGelu, a, b, c, GradMode::kAdd); };
  };
  EXPECT_TRUE(throws_error(backward({}, x, x), shape, {"activation_backward: kept must be", "got none"}));
  EXPECT_TRUE(throws_error(backward(x, other, x), shape, {"activation_backward: dy must be (2, 3) f32", "(3, 2)"}));
  EXPECT_TRUE(throws_error(backward(x, x, half), shape, {"activation_backward: dx must be (2, 3) f32", "bf16"}));
  EXPECT_TRUE(throws_error(backward(x, x, {}), shape, {"dx must be", "got none"}));
  Context elsewhere = cpu;
  elsewhere.device = Device::cuda(1);
  EXPECT_TRUE(
      throws_error([&] { activation_forward(elsewhere, Activation::kGelu, x, x); }, shape, {"x must be on device"}));
}

}  // namespace
}  // namespace permafrost
