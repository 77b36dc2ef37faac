#include "core/kernels/layer_norm.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/layer_norm_cpu.h"
#include "core/kernels/shape_ops.h"
#include "tests/kernels/dtypes.h"
#include "tests/reference/layer_norm_ref.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class LayerNormTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, LayerNormTest, ::testing::Values(Target::kPortable, Target::kAvx512, Target::kCuda),
                         target_name);

/// Inputs, outputs and a poisoned workspace of one call. Outputs hold NaN until written.
struct Case {
  OwnedTensor x, gain, bias, dy, y, mean, rstd, dx, dgain, dbias, workspace;

  Case(DType dtype, int64_t rows, int64_t width, double x_scale = 1.0)
      : x(random_tensor(dtype, {rows, width}, 1, x_scale)),
        gain(random_tensor(DType::kF32, {width}, 2)),
        bias(random_tensor(DType::kF32, {width}, 3)),
        dy(random_tensor(dtype, {rows, width}, 4)) {
    y = filled_tensor(dtype, {rows, width}, 0xff), dx = filled_tensor(dtype, {rows, width}, 0xff);
    mean = filled_tensor(DType::kF32, {rows}, 0xff), rstd = filled_tensor(DType::kF32, {rows}, 0xff);
    dgain = filled_tensor(DType::kF32, {width}, 0xff), dbias = filled_tensor(DType::kF32, {width}, 0xff);
    workspace = filled_tensor(DType::kU8, {layer_norm_workspace_bytes(rows, width, true)}, 0xff);
  }
  LayerNormForward forward(float eps = 1e-5f) const { return {x, gain, bias, y, mean, rstd, eps}; }
  LayerNormBackward backward() const {
    return {.dy = dy, .x = x, .gain = gain, .mean = mean, .rstd = rstd, .dx = dx, .dgain = dgain, .dbias = dbias};
  }
  reference::LayerNormGradients wanted() const {
    return reference::layer_norm_gradients(values_of(dy), values_of(x), values_of(gain), values_of(mean),
                                           values_of(rstd));
  }
  bool canaries_intact() const {
    for (const OwnedTensor* t : {&y, &mean, &rstd, &dx, &dgain, &dbias, &workspace})
      if (!t->canaries_intact()) return false;
    return true;
  }
};

TEST(LayerNorm, GradientFormulaAgreesWithDuals) {
  const size_t rows = 3, width = 5;
  const auto x = values_of(random_tensor(DType::kF64, {15}, 1)), dy = values_of(random_tensor(DType::kF64, {15}, 2));
  const auto gain = values_of(random_tensor(DType::kF64, {5}, 3)), bias = values_of(random_tensor(DType::kF64, {5}, 4));
  const auto kept = reference::layer_norm(x, gain, bias, 1e-5);
  const auto got = reference::layer_norm_gradients(dy, x, gain, kept.mean, kept.rstd);
  std::vector<double> all(x), gradient(got.dx);
  for (const auto* part : {&gain, &bias}) all.insert(all.end(), part->begin(), part->end());
  for (const auto* part : {&got.dgain, &got.dbias}) gradient.insert(gradient.end(), part->begin(), part->end());
  EXPECT_TRUE(gradient_agrees(
      gradient,
      [&](const auto& v) {
        using Vector = std::remove_cvref_t<decltype(v)>;
        const auto x_end = v.begin() + rows * width, gain_end = x_end + width;
        return reference::layer_norm(Vector(v.begin(), x_end), Vector(x_end, gain_end), Vector(gain_end, v.end()), 1e-5)
            .y;
      },
      all, dy));
}

TEST_P(LayerNormTest, AgreesWithGoldens) {
  const Golden golden("layer_norm.safetensors");
  for (const std::string& name : golden.cases()) {
    const Shape shape = golden.shape(name + ".x");
    Case c(DType::kF32, shape[0], shape[1]);
    c.x = golden.tensor(name + ".x"), c.dy = golden.tensor(name + ".dy");
    c.gain = golden.tensor(name + ".w"), c.bias = golden.tensor(name + ".b");
    layer_norm_forward_at(level(), device_context(2), c.forward(static_cast<float>(golden.number(name + ".eps"))));
    layer_norm_backward_at(level(), device_context(2), c.backward(), c.workspace);
    // Rounding the statistics counts once per normalised value: relative to |x| rstd |gain|.
    double magnitude = 1.0, largest_rstd = 1.0;
    const auto x = values_of(c.x), rstd = values_of(c.rstd);
    for (double value : rstd) largest_rstd = std::max(largest_rstd, value);
    for (size_t i = 0; i < x.size(); ++i)
      magnitude = std::max(magnitude, 4.0 * std::abs(x[i]) * rstd[i / static_cast<size_t>(shape[1])]);
    const auto close = [&](const OwnedTensor& got, const char* what, double scale, int64_t length) {
      return all_close(got, golden.values(name + what), tolerance_for(DType::kF32, length, scale)) << name << what;
    };
    EXPECT_TRUE(close(c.y, ".y", magnitude, shape[1]));
    EXPECT_TRUE(close(c.dx, ".dx", magnitude * largest_rstd, shape[1]));
    EXPECT_TRUE(close(c.dgain, ".dw", magnitude, shape[0]));
    EXPECT_TRUE(close(c.dbias, ".db", 4.0, shape[0]));
  }
}

TEST_P(LayerNormTest, ForwardAndBackwardAtEverySize) {
  for (DType dtype : tested_dtypes())
    for (auto [rows, width] : {std::pair<int64_t, int64_t>{1, 1},
                               {3, 2},
                               {5, 15},
                               {4, 16},
                               {7, 17},
                               {33, 64},
                               {70, 96},
                               {150, 130},
                               {9, 768},
                               {6, 1024},
                               {6, 1025},
                               {150, 1040},
                               {2, 4096},
                               {3, 4100},
                               {2, 9000}}) {
      Case c(dtype, rows, width);
      layer_norm_forward_at(level(), device_context(2), c.forward());
      const auto want = reference::layer_norm(values_of(c.x), values_of(c.gain), values_of(c.bias), double{1e-5f});
      const Tolerance of_row = tolerance_for(dtype, width, 16.0);
      EXPECT_TRUE(all_close(c.mean, want.mean, tolerance_for(DType::kF32, width, 1.0)));
      // rstd of a nearly constant row (width 1: eps alone) is large: relative. Half of the error of the sum of squares,
      // as tolerance_for has it, and a few roundings.
      const double of_rstd = 0x1p-25 * (4.0 * std::sqrt(double(width)) + 12.0);
      for (size_t r = 0; r < want.rstd.size(); ++r) EXPECT_NEAR(values_of(c.rstd)[r] / want.rstd[r], 1.0, of_rstd);
      EXPECT_TRUE(all_close(c.y, want.y, of_row)) << rows << " x " << width;
      layer_norm_backward_at(level(), device_context(2), c.backward(), c.workspace);
      const auto gradients = c.wanted();
      double rstd = 1.0;
      for (double value : want.rstd) rstd = std::max(rstd, value);
      EXPECT_TRUE(all_close(c.dx, gradients.dx, tolerance_for(dtype, width, 16.0 * rstd))) << rows << " x " << width;
      EXPECT_TRUE(all_close(c.dgain, gradients.dgain, tolerance_for(DType::kF32, rows, 8.0 * double(rows))));
      EXPECT_TRUE(all_close(c.dbias, gradients.dbias, tolerance_for(DType::kF32, rows, 4.0 * double(rows))));
      EXPECT_TRUE(c.canaries_intact());
    }
}

TEST_P(LayerNormTest, AddsWhenAsked) {
  for (DType dtype : tested_dtypes()) {
    Case c(dtype, 40, 33);
    layer_norm_forward_at(level(), device_context(), c.forward());
    c.dx = random_tensor(dtype, {40, 33}, 7);
    c.dgain = random_tensor(DType::kF32, {33}, 8), c.dbias = random_tensor(DType::kF32, {33}, 9);
    auto want = c.wanted();
    const auto add = [](std::vector<double>& sum, const std::vector<double>& more) {
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
    };
    add(want.dx, values_of(c.dx)), add(want.dgain, values_of(c.dgain)), add(want.dbias, values_of(c.dbias));
    LayerNormBackward args = c.backward();
    args.dx_mode = args.dgain_mode = args.dbias_mode = GradMode::kAdd;
    layer_norm_backward_at(level(), device_context(), args, c.workspace);
    EXPECT_TRUE(all_close(c.dx, want.dx, tolerance_for(dtype, 33, 16.0)));
    EXPECT_TRUE(all_close(c.dgain, want.dgain, tolerance_for(DType::kF32, 40, 320.0)));
    EXPECT_TRUE(all_close(c.dbias, want.dbias, tolerance_for(DType::kF32, 40, 160.0)));
  }
}

TEST_P(LayerNormTest, EveryChoiceOfWantedGradients) {
  for (DType dtype : tested_dtypes()) {
    Case all(dtype, 70, 50);
    layer_norm_forward_at(level(), device_context(), all.forward());
    layer_norm_backward_at(level(), device_context(), all.backward(), all.workspace);
    for (int wanted = 0; wanted < 8; ++wanted) {
      Case some(dtype, 70, 50);
      layer_norm_forward_at(level(), device_context(), some.forward());
      LayerNormBackward args = some.backward();
      if (!(wanted & 1)) args.dx = args.gain = {};  // gain is read for dx alone
      if (!(wanted & 2)) args.dgain = {};
      if (!(wanted & 4)) args.dbias = {};
      // Nothing of the parameters wanted: no workspace either.
      layer_norm_backward_at(level(), device_context(), args, wanted & 6 ? some.workspace.view() : Tensor());
      const auto untouched = [](const OwnedTensor& t) {
        return same_bits(t, filled_tensor(t.view().dtype(), t.view().shape(), 0xff));
      };
      EXPECT_TRUE(wanted & 1 ? same_bits(some.dx, all.dx) : untouched(some.dx));
      EXPECT_TRUE(wanted & 2 ? same_bits(some.dgain, all.dgain) : untouched(some.dgain));
      EXPECT_TRUE(wanted & 4 ? same_bits(some.dbias, all.dbias) : untouched(some.dbias));
      EXPECT_TRUE(some.canaries_intact());
    }
    EXPECT_EQ(layer_norm_workspace_bytes(70, 50, false), 0);
  }
}

TEST_P(LayerNormTest, SameBitsForAnyThreadsAndNeighbours) {
  for (DType dtype : tested_dtypes()) {
    Case one(dtype, 301, 75);
    layer_norm_forward_at(level(), device_context(1), one.forward());
    layer_norm_backward_at(level(), device_context(1), one.backward(), one.workspace);
    for (int threads : {2, 3}) {
      Case many(dtype, 301, 75);
      layer_norm_forward_at(level(), device_context(threads), many.forward());
      layer_norm_backward_at(level(), device_context(threads), many.backward(), many.workspace);
      for (auto [a, b] : {std::pair{&one.y, &many.y},
                          {&one.mean, &many.mean},
                          {&one.rstd, &many.rstd},
                          {&one.dx, &many.dx},
                          {&one.dgain, &many.dgain},
                          {&one.dbias, &many.dbias}})
        EXPECT_TRUE(same_bits(*a, *b));
    }
    // A row alone, at another alignment (75 elements: never that of row 0).
    Case alone(dtype, 1, 75);
    alone.x = make_tensor(dtype, {1, 75}, values_of(one.x.view().rows(17, 18)));
    layer_norm_forward_at(level(), device_context(), alone.forward());
    EXPECT_TRUE(same_bits(alone.y, one.y.view().rows(17, 18)));
  }
}

/// The same values one element further.
Tensor shifted(const OwnedTensor& values, OwnedTensor& memory) {
  const Tensor from = values;
  const int64_t n = from.elements();
  memory = OwnedTensor(from.dtype(), {n + 1});
  const Tensor to = memory.view().rows(1, n + 1).reshaped(from.shape());
  finish_kernels();
  if (n > 0) std::memcpy(to.raw(), from.raw(), static_cast<size_t>(from.bytes()));
  return to;
}

TEST_P(LayerNormTest, SameBitsAtAnyAlignment) {
  for (DType dtype : tested_dtypes())
    for (auto [rows, width] : {std::pair<int64_t, int64_t>{40, 64}, {5, 1024}, {33, 1104}, {3, 8200}}) {
      Case c(dtype, rows, width), other(dtype, rows, width);
      OwnedTensor x, gain, bias, dy, y, dx;
      const LayerNormForward forward{.x = shifted(c.x, x),
                                     .gain = shifted(c.gain, gain),
                                     .bias = shifted(c.bias, bias),
                                     .y = shifted(c.y, y),
                                     .mean = other.mean,
                                     .rstd = other.rstd};
      layer_norm_forward_at(level(), device_context(), c.forward());
      layer_norm_forward_at(level(), device_context(), forward);
      EXPECT_TRUE(same_bits(forward.y, c.y) && same_bits(other.mean, c.mean) && same_bits(other.rstd, c.rstd)) << width;
      LayerNormBackward backward = other.backward();
      backward.dy = shifted(c.dy, dy), backward.x = forward.x, backward.gain = forward.gain;
      backward.dx = shifted(c.dx, dx);
      layer_norm_backward_at(level(), device_context(), c.backward(), c.workspace);
      layer_norm_backward_at(level(), device_context(), backward, other.workspace);
      EXPECT_TRUE(same_bits(backward.dx, c.dx) && same_bits(other.dgain, c.dgain) && same_bits(other.dbias, c.dbias))
          << width;
      EXPECT_TRUE(x.canaries_intact() && y.canaries_intact() && dx.canaries_intact());
    }
}

TEST_P(LayerNormTest, InPlaceAndWithoutKeeping) {
  for (DType dtype : tested_dtypes())
    for (int64_t width : {77, 64, 9000}) {
      Case kept(dtype, 5, width), in_place(dtype, 5, width);
      layer_norm_forward_at(level(), device_context(), kept.forward());
      LayerNormForward args = in_place.forward();
      args.mean = args.rstd = {};
      args.y = args.x;
      layer_norm_forward_at(level(), device_context(), args);
      EXPECT_TRUE(same_bits(in_place.x, kept.y));
      LayerNormBackward backward = kept.backward(), over = kept.backward();
      layer_norm_backward_at(level(), device_context(), backward, kept.workspace);
      over.dx = over.dy, over.dgain = in_place.dgain, over.dbias = in_place.dbias;
      layer_norm_backward_at(level(), device_context(), over, kept.workspace);
      EXPECT_TRUE(same_bits(kept.dx, kept.dy));
      EXPECT_TRUE(same_bits(kept.dgain, in_place.dgain) && same_bits(kept.dbias, in_place.dbias));
    }
}

TEST_P(LayerNormTest, MakesTheSumFirst) {
  for (DType dtype : tested_dtypes())
    for (auto [rows, width] : {std::pair<int64_t, int64_t>{5, 15},
                               {4, 16},
                               {70, 96},
                               {6, 1024},
                               {6, 1025},
                               {40, 1040},
                               {3, 4100},
                               {2, 9000}}) {
      Case apart(dtype, rows, width), kept(dtype, rows, width), over(dtype, rows, width), plain(dtype, rows, width);
      const auto a = random_tensor(dtype, {rows, width}, 5), b = random_tensor(dtype, {rows, width}, 6);
      add_forward(device_context(2), a, b, apart.x);
      layer_norm_forward_at(level(), device_context(2), apart.forward());
      LayerNormForward args = kept.forward();
      kept.x = filled_tensor(dtype, {rows, width}, 0xff);
      args.x = kept.x, args.a = a, args.b = b;
      layer_norm_forward_at(level(), device_context(2), args);
      const auto agrees = [&](const Case& c, const Tensor& x, const Tensor& y) {
        EXPECT_TRUE(same_bits(x, apart.x) && same_bits(y, apart.y)) << rows << " x " << width;
        EXPECT_TRUE(c.canaries_intact() && c.x.canaries_intact());
      };
      agrees(kept, kept.x, kept.y);
      EXPECT_TRUE(same_bits(kept.mean, apart.mean) && same_bits(kept.rstd, apart.rstd));
      over.x = a;  // the residual stream in place
      args = over.forward();
      args.a = over.x, args.b = b;
      layer_norm_forward_at(level(), device_context(2), args);
      agrees(over, over.x, over.y);
      plain.x = a;  // and over it the norm, which nobody goes back through
      args = plain.forward();
      args.a = args.y = plain.x, args.b = b, args.mean = args.rstd = {};
      layer_norm_forward_at(level(), device_context(2), args);
      EXPECT_TRUE(same_bits(plain.x, apart.y) && plain.x.canaries_intact()) << rows << " x " << width;
    }
}

TEST_P(LayerNormTest, EmptySizes) {
  for (DType dtype : tested_dtypes()) {
    Case no_rows(dtype, 0, 5);
    layer_norm_forward_at(level(), device_context(), no_rows.forward());
    layer_norm_backward_at(level(), device_context(), no_rows.backward(), {});
    EXPECT_TRUE(all_close(no_rows.dgain, std::vector<double>(5), {}));
    EXPECT_TRUE(all_close(no_rows.dbias, std::vector<double>(5), {}));
    no_rows.dgain = make_tensor(DType::kF32, {5}, {1, 2, 3, 4, 5});
    LayerNormBackward args = no_rows.backward();
    args.dgain_mode = GradMode::kAdd;
    layer_norm_backward_at(level(), device_context(), args, {});
    EXPECT_TRUE(all_close(no_rows.dgain, {1, 2, 3, 4, 5}, {}));
    Case no_width(dtype, 3, 0);
    layer_norm_forward_at(level(), device_context(), no_width.forward());
    layer_norm_backward_at(level(), device_context(), no_width.backward(), no_width.workspace);
    EXPECT_TRUE(no_width.canaries_intact());
  }
}

TEST_P(LayerNormTest, NanStaysInItsRow) {
  for (DType dtype : tested_dtypes()) {
    Case c(dtype, 3, 20);
    auto values = values_of(c.x);
    values[25] = std::numeric_limits<double>::quiet_NaN();
    c.x = make_tensor(dtype, {3, 20}, values);
    layer_norm_forward_at(level(), device_context(), c.forward());
    layer_norm_backward_at(level(), device_context(), c.backward(), c.workspace);
    for (size_t i = 0; i < 60; ++i) {
      EXPECT_EQ(std::isnan(values_of(c.y)[i]), i / 20 == 1) << i;
      EXPECT_EQ(std::isnan(values_of(c.dx)[i]), i / 20 == 1) << i;
    }
    for (double value : values_of(c.dgain)) EXPECT_TRUE(std::isnan(value));
    for (double value : values_of(c.dbias)) EXPECT_FALSE(std::isnan(value));
  }
}

TEST_P(LayerNormTest, LargeMeanDoesNotCancel) {
  Case c(DType::kF32, 4, 768);
  auto values = values_of(c.x);
  for (double& value : values) value = static_cast<float>(value + 1000.0);
  c.x = make_tensor(DType::kF32, {4, 768}, values);
  layer_norm_forward_at(level(), device_context(), c.forward());
  const auto want = reference::layer_norm(values, values_of(c.gain), values_of(c.bias), double{1e-5f});
  // The mean itself is rounded (to 2^-14 or so at 1000); nothing worse may happen.
  EXPECT_TRUE(all_close(c.y, want.y, {4 * 0x1p-14, 0x1p-20}));
}

TEST(LayerNorm, Errors) {
  const Context cpu = device_context();
  const ErrorKind shape = ErrorKind::kShapeMismatch;
  const Case c(DType::kF32, 4, 6);
  const auto wrong = random_tensor(DType::kF32, {5}, 1), half = random_tensor(DType::kBF16, {4, 6}, 1);
  const auto forward = [&](auto change, const std::vector<std::string>& parts) {
    LayerNormForward args = c.forward();
    change(args);
    EXPECT_TRUE(throws_error([&] { layer_norm_forward(cpu, args); }, shape, parts));
  };
  forward([&](auto& a) { a.x = {}; }, {"layer_norm_forward: x must be (R, C) f32 or bf16", "got none"});
  forward([&](auto& a) { a.x = wrong; }, {"layer_norm_forward: x must be (R, C)", "got (5) f32"});
  forward([&](auto& a) { a.gain = wrong; }, {"gain must be (6) f32", "got (5) f32"});
  forward([&](auto& a) { a.bias = {}; }, {"bias must be (6) f32", "got none"});
  forward([&](auto& a) { a.y = half; }, {"y must be (4, 6) f32", "got (4, 6) bf16"});
  forward([&](auto& a) { a.mean = wrong; }, {"mean must be (4) f32", "got (5)"});
  forward([&](auto& a) { a.rstd = wrong; }, {"rstd must be (4) f32", "got (5)"});
  forward([&](auto& a) { a.y = a.x; }, {"y must not be x when mean or rstd is kept"});
  forward([&](auto& a) { a.a = c.dy, a.b = half; }, {"layer_norm_forward: b must be (4, 6) f32", "got (4, 6) bf16"});
  forward([&](auto& a) { a.a = wrong, a.b = c.dy; }, {"layer_norm_forward: a must be (4, 6) f32", "got (5)"});
  LayerNormForward half_sum = c.forward();
  half_sum.b = c.dy;
  EXPECT_TRUE(throws_error([&] { layer_norm_forward(cpu, half_sum); }, ErrorKind::kInvalidArgument,
                           {"layer_norm_forward: a and b must be given both or not at all; got b alone"}));
  const auto backward = [&](auto change, const std::vector<std::string>& parts) {
    LayerNormBackward args = c.backward();
    change(args);
    EXPECT_TRUE(throws_error([&] { layer_norm_backward(cpu, args, c.workspace); }, shape, parts));
  };
  backward([&](auto& a) { a.dy = {}; }, {"layer_norm_backward: dy must be (R, C) f32 or bf16", "got none"});
  backward([&](auto& a) { a.x = half; }, {"x must be (4, 6) f32", "bf16"});
  backward([&](auto& a) { a.gain = wrong; }, {"gain must be (6) f32"});
  backward([&](auto& a) { a.mean = wrong; }, {"mean must be (4) f32"});
  backward([&](auto& a) { a.rstd = {}; }, {"rstd must be (4) f32", "got none"});
  backward([&](auto& a) { a.dx = half; }, {"dx must be (4, 6) f32"});
  backward([&](auto& a) { a.dgain = wrong; }, {"dgain must be (6) f32"});
  backward([&](auto& a) { a.dbias = wrong; }, {"dbias must be (6) f32"});
  EXPECT_TRUE(throws_error([&] { layer_norm_backward(cpu, c.backward(), {}); }, shape,
                           {"layer_norm_backward: workspace must have at least 128 bytes", "got 0"}));
  Context cuda = cpu;
  cuda.device = Device::cuda(0);
  EXPECT_TRUE(throws_error([&] { layer_norm_forward(cuda, c.forward()); }, shape, {"must be on device cuda:0"}));
}

}  // namespace
}  // namespace permafrost
