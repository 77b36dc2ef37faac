#include "core/kernels/adamw.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/device/cpu_features.h"
#include "core/kernels/adamw_cpu.h"
#include "core/kernels/flat_pieces.h"
#include "tests/reference/adamw_ref.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr DType kF32 = DType::kF32;
constexpr double kUnit = 0x1p-24;

class AdamwTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, AdamwTest, ::testing::Values(kCpu, Target::kCuda), target_name);

struct Buffers {
  OwnedTensor master, m, v, grad;
};

Buffers random_buffers(int64_t n) {
  Buffers b{random_tensor(kF32, {n}, 1), random_tensor(kF32, {n}, 2), random_tensor(kF32, {n}, 3),
            random_tensor(kF32, {n}, 4)};
  for (int64_t i = 0; i < n; ++i) b.v.view().data<float>()[i] *= b.v.view().data<float>()[i];
  return b;
}

AdamwStep some_step() {
  AdamwStep step;
  step.lr = 3e-3;
  step.weight_decay = 0.1;
  step.step = 7;
  step.grad_scale = 0.25;
  return step;
}

TEST_P(AdamwTest, OneStepAgreesWithTheReference) {
  for (int64_t n : {1, 15, 16, 17, 1000, 8193, 20001})
    for (double eps : {1e-8, 0.1}) {
      AdamwStep step = some_step();
      step.eps = eps;
      Buffers b = random_buffers(n);
      reference::AdamwState<double> want{values_of(b.master), values_of(b.m), values_of(b.v)};
      reference::adamw(step, want, values_of(b.grad));
      adamw(device_context(2), step, b.master, b.m, b.v, b.grad, Tensor());
      // m: two products and a sum of terms below 6; v: all terms positive, coefficients rounded too.
      EXPECT_TRUE(all_close(b.m, want.m, {4 * 6 * kUnit, 0}));
      EXPECT_TRUE(all_close(b.v, want.v, {0, 6 * kUnit}));
      // Update = step_size * m / denominator, a ratio that can be large where v is small: its error follows that of m.
      const auto got = values_of(b.master), v = values_of(b.v);
      const double correction = std::sqrt(1 - std::pow(step.beta2, 7)), size = step.lr / (1 - std::pow(step.beta1, 7));
      for (size_t i = 0; i < got.size(); ++i) {
        const double denominator = std::sqrt(v[i]) / correction + eps;
        const double update = size * want.m[i] / denominator;
        ASSERT_LE(std::abs(got[i] - want.param[i]),
                  kUnit * (4 * std::abs(want.param[i]) + 12 * std::abs(update) + size * 24 / denominator))
            << i;
      }
      EXPECT_TRUE(b.master.canaries_intact() && b.m.canaries_intact() && b.v.canaries_intact() &&
                  b.grad.canaries_intact());
    }
}

TEST_P(AdamwTest, Goldens) {
  const Golden golden("adamw.safetensors");
  for (const std::string& name : golden.cases()) {
    SCOPED_TRACE(name);
    AdamwStep step;
    step.beta1 = golden.number(name + ".beta1");
    step.beta2 = golden.number(name + ".beta2");
    step.eps = golden.number(name + ".eps");
    step.weight_decay = golden.number(name + ".weight_decay");
    const auto lr = golden.values(name + ".lr");
    const OwnedTensor grads = golden.tensor(name + ".grads"), master = golden.tensor(name + ".param0");
    const int64_t n = master.view().elements();
    const OwnedTensor m(kF32, {n}), v(kF32, {n});
    double largest_gradient = 0;
    for (double g : values_of(grads)) largest_gradient = std::max(largest_gradient, std::abs(g));
    const double largest_lr = *std::max_element(lr.begin(), lr.end());
    for (int64_t t = 1; t <= static_cast<int64_t>(lr.size()); ++t) {
      step.step = t;
      step.lr = lr[static_cast<size_t>(t - 1)];
      adamw(device_context(), step, master, m, v, grads.view().rows(t - 1, t).reshaped({n}), Tensor());
      const std::string after = name + ".after" + std::to_string(t);
      if (!golden.has(after + ".param")) continue;
      // Per step: m gains four roundings of terms below max |g|, forgotten at rate beta1; v five, relative. The update
      // is at most lr per step times a few, with the relative errors of m and v over a denominator that is at least
      // sqrt((1 - beta2) / (1 - beta2^20)) > 0.2 of the element's largest gradient.
      const double steps = static_cast<double>(t);
      const double m_error = 4 * kUnit * std::min(steps, 1 / (1 - step.beta1)) * largest_gradient;
      EXPECT_TRUE(all_close(m, golden.values(after + ".m"), {m_error, kUnit}));
      EXPECT_TRUE(all_close(v, golden.values(after + ".v"), {0, 5 * kUnit * steps}));
      EXPECT_TRUE(
          all_close(master, golden.values(after + ".param"), {steps * largest_lr * 200 * kUnit, 3 * steps * kUnit}));
    }
  }
}

TEST(Adamw, DerivativesOfTheReferenceAreThoseOfTheFormula) {
  // First step from zero state: p' = (1 - lr wd) p - lr g / (|g| + eps), so dp'/dp = 1 - lr wd and
  // dp'/dg = -lr eps / (|g| + eps)^2.
  AdamwStep step;
  step.lr = 0.1;
  step.weight_decay = 0.3;
  step.eps = 0.5;
  const std::vector<double> param{1.5, -2, 0.25}, grad{0.7, -0.2, 1.1}, cotangent{1, 2, 3};
  std::vector<double> want_param, want_grad;
  for (size_t i = 0; i < 3; ++i) {
    want_param.push_back(cotangent[i] * (1 - 0.1 * 0.3));
    want_grad.push_back(-cotangent[i] * 0.1 * 0.5 / std::pow(std::abs(grad[i]) + 0.5, 2));
  }
  const auto update = [&](const std::vector<Dual>& p, const std::vector<Dual>& g) {
    reference::AdamwState<Dual> state{p, std::vector<Dual>(3), std::vector<Dual>(3)};
    reference::adamw(step, state, g);
    return state.param;
  };
  const std::vector<Dual> p(param.begin(), param.end()), g(grad.begin(), grad.end());
  EXPECT_TRUE(gradient_agrees(
      want_param, [&](const auto& x) { return update(x, g); }, param, cotangent));
  EXPECT_TRUE(gradient_agrees(
      want_grad, [&](const auto& x) { return update(p, x); }, grad, cotangent));
}

TEST_P(AdamwTest, WorkingCopyIsTheRoundedMaster) {
  for (DType dtype : {kF32, DType::kBF16, DType::kF16}) {
    Buffers with = random_buffers(8321), without = random_buffers(8321);
    auto working = filled_tensor(dtype, {8321}, 0xff);
    adamw(device_context(2), some_step(), with.master, with.m, with.v, with.grad, working);
    adamw(device_context(2), some_step(), without.master, without.m, without.v, without.grad, Tensor());
    EXPECT_TRUE(same_bits(with.master, without.master));
    EXPECT_TRUE(same_bits(working, make_tensor(dtype, {8321}, values_of(with.master))));
    EXPECT_TRUE(working.canaries_intact());
  }
}

TEST(Adamw, SameBitsForAnyNumberOfThreadsAndInstructionSet) {
  std::vector<Buffers> results;
  for (int threads : {1, 2, 3}) {
    results.push_back(random_buffers(30011));
    Buffers& b = results.back();
    adamw(device_context(threads), some_step(), b.master, b.m, b.v, b.grad, Tensor());
    EXPECT_TRUE(same_bits(b.master, results[0].master) && same_bits(b.m, results[0].m) && same_bits(b.v, results[0].v));
  }
  if (!cpu_features().avx512) return;
  const AdamwFactors factors{0.5f, 0.99f, 0.9f, 0.1f, 0.999f, 0.001f, 0.01f, 0.3f, 1e-8f};
  for (DType dtype : {kF32, DType::kBF16, DType::kF16}) {
    Buffers a = random_buffers(1003), b = random_buffers(1003);
    OwnedTensor first(dtype, {1003}), second(dtype, {1003});
    const auto block = [&](const Buffers& x, const OwnedTensor& working) {
      return cpu::AdamwBlock{x.master.view().data<float>(),
                             x.m.view().data<float>(),
                             x.v.view().data<float>(),
                             x.grad.view().data<float>(),
                             working.view().raw(),
                             dtype,
                             1003};
    };
    cpu::adamw_loop_baseline(factors, block(a, first));
    cpu::adamw_loop_avx512(factors, block(b, second));
    EXPECT_TRUE(same_bits(a.master, b.master) && same_bits(a.m, b.m) && same_bits(a.v, b.v) &&
                same_bits(first, second));
  }
}

TEST_P(AdamwTest, SameBitsAsOnCpuAtAnyAlignment) {
  for (DType dtype : {kF32, DType::kBF16, DType::kF16})
    for (int64_t first : {0, 1, 4}) {
      const int64_t n = 10007;
      const Buffers here = random_buffers(n);
      const auto working = filled_tensor(dtype, {n}, 0);
      const auto from = [&](const OwnedTensor& t) { return t.view().rows(first, n); };
      adamw(device_context(), some_step(), from(here.master), from(here.m), from(here.v), from(here.grad),
            from(working));
      use_device(Device::cpu());
      const Buffers there = random_buffers(n);
      const auto want = filled_tensor(dtype, {n}, 0);
      adamw(device_context(), some_step(), from(there.master), from(there.m), from(there.v), from(there.grad),
            from(want));
      if (on_cuda()) use_device(Device::cuda(0));
      EXPECT_TRUE(same_bits(here.master, there.master) && same_bits(here.m, there.m) && same_bits(here.v, there.v) &&
                  same_bits(working, want));
    }
}

/// Parameters of a slice with factors and working dtypes of their own, gaps between them.
TEST_P(AdamwTest, PiecesOfASliceAreTheParametersOneByOne) {
  struct Param {
    int64_t begin, elements, byte;
    DType dtype;
    AdamwStep step;
  };
  std::vector<Param> params{{32, 9001, 64, DType::kBF16, some_step()},
                            {9088, 5, 20'000, kF32, some_step()},
                            {9120, 4096, 20'032, DType::kF16, some_step()}};
  params[1].step.lr = 1e-2;
  params[2].step.weight_decay = 0;
  const int64_t n = 13'300, bytes = 30'000;
  const float clip = 0.75f;
  constexpr int64_t kFactors = sizeof(AdamwFactors) / sizeof(float);
  const Buffers got = random_buffers(n), want = random_buffers(n);
  const OwnedTensor working = filled_tensor(DType::kU8, {bytes}, 0),
                    want_working = filled_tensor(DType::kU8, {bytes}, 0), factors(kF32, {3, kFactors}),
                    scale = make_tensor(kF32, {1}, {clip}), apply = make_tensor(DType::kI32, {1}, {0});
  std::vector<FlatPiece> pieces;
  for (size_t p = 0; p < params.size(); ++p) {
    Param& param = params[p];
    append_pieces(pieces,
                  {param.begin, param.elements, static_cast<int64_t>(p), param.byte, static_cast<int64_t>(param.dtype)},
                  used_device());
    const AdamwFactors row = adamw_factors(param.step);
    std::memcpy(factors.view().data<float>() + kFactors * static_cast<int64_t>(p), &row, sizeof row);
    param.step.grad_scale = clip;
    const auto part = [&](const OwnedTensor& t) { return t.view().rows(param.begin, param.begin + param.elements); };
    adamw(device_context(), param.step, part(want.master), part(want.m), part(want.v), part(want.grad),
          Tensor(want_working.view().data<uint8_t>() + param.byte, param.dtype, Shape{param.elements}, used_device()));
  }
  const PieceTable table(pieces, used_device());
  const AdamwPieces args{table.view(), factors, scale, apply, got.master, got.m, got.v, got.grad, working};
  adamw_pieces(device_context(), args);
  EXPECT_TRUE(same_bits(got.master, random_buffers(n).master)) << "a step that is not to be taken changes nothing";
  *apply.view().data<int32_t>() = 1;
  adamw_pieces(device_context(), args);
  EXPECT_TRUE(same_bits(got.master, want.master) && same_bits(got.m, want.m) && same_bits(got.v, want.v));
  EXPECT_TRUE(same_bits(working, want_working));
  EXPECT_TRUE(throws_error(
      [&] {
        AdamwPieces bad = args;
        bad.grad = scale;
        adamw_pieces(device_context(), bad);
      },
      ErrorKind::kShapeMismatch, {"adamw_pieces: grad must be (13300) f32", "(1)"}));
  EXPECT_TRUE(throws_error(
      [&] {
        AdamwPieces bad = args;
        bad.factors = scale;
        adamw_pieces(device_context(), bad);
      },
      ErrorKind::kShapeMismatch, {"adamw_pieces: factors must be (rows, 9) f32"}));
}

TEST_P(AdamwTest, NanEmptyAndNoGradient) {
  Buffers b = random_buffers(20);
  b.grad.view().data<float>()[3] = NAN;
  OwnedTensor working(DType::kBF16, {20});
  adamw(device_context(), some_step(), b.master, b.m, b.v, b.grad, working);
  for (const Tensor& t : {b.master.view(), b.m.view(), b.v.view(), working.view()})
    for (size_t i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(values_of(t)[i]), i == 3);

  const OwnedTensor none(kF32, {0});
  adamw(device_context(), some_step(), none, none, none, none, none);

  // Zero state and zero gradient: 0 / (0 + eps) moves nothing; decay alone acts.
  Buffers z{make_tensor(kF32, {2}, {1, -2}), OwnedTensor(kF32, {2}), OwnedTensor(kF32, {2}), OwnedTensor(kF32, {2})};
  AdamwStep step = some_step();
  step.weight_decay = 0;
  adamw(device_context(), step, z.master, z.m, z.v, z.grad, Tensor());
  EXPECT_TRUE(all_close(z.master, {1, -2}, {}));
}

TEST_P(AdamwTest, Errors) {
  const Context c = device_context();
  const OwnedTensor x(kF32, {4}), wrong(kF32, {5});
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  const auto call = [&](Tensor p, Tensor m, Tensor v, Tensor g, Tensor w) {
    return [=] { adamw(c, AdamwStep{}, p, m, v, g, w); };
  };
  EXPECT_TRUE(throws_error(call(OwnedTensor(kF32, {2, 2}), x, x, x, {}), shape,
                           {"adamw: master must be (n) f32; got (2, 2) f32"}));
  EXPECT_TRUE(throws_error(call(x, wrong, x, x, {}), shape, {"adamw: m must be (4) f32; got (5) f32"}));
  EXPECT_TRUE(throws_error(call(x, x, wrong, x, {}), shape, {"adamw: v must be (4) f32; got (5) f32"}));
  EXPECT_TRUE(throws_error(call(x, x, x, OwnedTensor(DType::kBF16, {4}), {}), shape,
                           {"adamw: grad must be (4) f32; got (4) bf16"}));
  EXPECT_TRUE(throws_error(call(x, x, x, Tensor(), {}), shape, {"adamw: grad must be (4) f32; got none"}));
  EXPECT_TRUE(
      throws_error(call(x, x, x, x, wrong), shape, {"adamw: working must be (4) f32, bf16 or f16; got (5) f32"}));
  const auto with = [&](auto change) {
    AdamwStep step;
    change(step);
    return [=, &c, &x] { adamw(c, step, x, x, x, x, Tensor()); };
  };
  EXPECT_TRUE(throws_error(with([](AdamwStep& s) { s.step = 0; }), argument, {"adamw: step must count from 1; got 0"}));
  EXPECT_TRUE(
      throws_error(with([](AdamwStep& s) { s.beta1 = 1; }), argument, {"adamw: beta1 must lie in [0, 1); got 1"}));
  EXPECT_TRUE(throws_error(with([](AdamwStep& s) { s.beta2 = -0.5; }), argument,
                           {"adamw: beta2 must lie in [0, 1); got -0.5"}));
  EXPECT_TRUE(
      throws_error(with([](AdamwStep& s) { s.eps = NAN; }), argument, {"adamw: eps must not be negative; got nan"}));
  EXPECT_TRUE(
      throws_error(with([](AdamwStep& s) { s.lr = INFINITY; }), argument, {"adamw: lr must be finite; got inf"}));
  EXPECT_TRUE(
      throws_error(with([](AdamwStep& s) { s.weight_decay = NAN; }), argument, {"adamw: weight_decay must be finite"}));
  EXPECT_TRUE(
      throws_error(with([](AdamwStep& s) { s.grad_scale = NAN; }), argument, {"adamw: grad_scale must be finite"}));
}

}  // namespace
}  // namespace permafrost
