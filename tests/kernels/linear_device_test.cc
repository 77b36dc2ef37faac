// What linear layers on a CUDA device do otherwise than on CPU, tested on both where both can be asked: linear_cuda.cu,
// and the plans and choices of matmul_cuda.cu under it.
#include <cmath>
#include <cstring>

#include "core/kernels/linear.h"
#include "tests/kernels/dtypes.h"
#include "tests/kernels/linear_tolerance.h"
#include "tests/reference/linear_ref.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class LinearOnDevice : public KernelTest {
 protected:
  /// Of all passes with these extents.
  static OwnedTensor workspace_for(int64_t m, int64_t n, int64_t k, DType compute, DType weight) {
    int64_t bytes = 0;
    for (LinearPass pass : {LinearPass::kForward, LinearPass::kBackwardInput, LinearPass::kBackwardWeight})
      bytes = std::max(bytes, linear_workspace_bytes(pass, m, n, k, compute, weight, 1, device_context().device.kind));
    return filled_tensor(kU8, {bytes}, 0xff);
  }
  static bool emulated() { return cuda::device_info(0).name == "emulated"; }
};
INSTANTIATE_TEST_SUITE_P(Targets, LinearOnDevice, ::testing::Values(kCpu, Target::kCuda), target_name);

class LinearOnCuda : public LinearOnDevice {};
INSTANTIATE_TEST_SUITE_P(Targets, LinearOnCuda, ::testing::Values(Target::kCuda), target_name);

/// A tensor one element behind where memory is aligned.
struct Shifted {
  OwnedTensor memory;
  Tensor view;
  explicit Shifted(const Tensor& from) : memory(from.dtype(), {from.elements() + 1}) {
    view = memory.view().rows(1, from.elements() + 1).reshaped(from.shape());
    std::memcpy(view.raw(), from.raw(), static_cast<size_t>(from.bytes()));
  }
};

TEST_P(LinearOnDevice, KeepingPreChangesNothing) {
  const int64_t m = 30, n = 40, k = 50;
  for (DType dtype : tested_dtypes())
    for (Activation kind : {Activation::kNone, Activation::kGelu, Activation::kQuickGelu, Activation::kRelu,
                            Activation::kSquaredRelu, Activation::kTanh}) {
      SCOPED_TRACE(concat(to_string(kind), " ", to_string(dtype)));
      const auto x = random_tensor(dtype, {m, k}, 1), weight = random_tensor(dtype, {n, k}, 2, 0.2);
      const auto bias = random_tensor(kF32, {n}, 3);
      auto y = filled_tensor(dtype, {m, n}, 0xff), pre = filled_tensor(dtype, {m, n}, 0xff),
           kept = filled_tensor(dtype, {m, n}, 0xff);
      const auto workspace = workspace_for(m, n, k, dtype, dtype);
      linear_forward(device_context(), {x, weight, bias, y, {}, kind}, workspace);
      linear_forward(device_context(), {x, weight, bias, kept, pre, kind}, workspace);
      EXPECT_TRUE(same_bits(y, kept));
      EXPECT_TRUE(y.canaries_intact() && kept.canaries_intact() && pre.canaries_intact());
    }
}

TEST_P(LinearOnDevice, AnyAlignment) {
  for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{20, 32, 48}, {7, 9, 11}})
    for (DType dtype : tested_dtypes()) {
      SCOPED_TRACE(concat(m, " ", n, " ", k, " ", to_string(dtype)));
      const auto x = random_tensor(dtype, {m, k}, 1), weight = random_tensor(dtype, {n, k}, 2);
      const auto dy = random_tensor(dtype, {m, n}, 3), bias = random_tensor(kF32, {n}, 4);
      const Shifted x2(x), weight2(weight), dy2(dy), bias2(bias), y2(dy), dx2(x), dweight2(OwnedTensor(kF32, {n, k})),
          dbias2(bias);
      OwnedTensor y(dtype, {m, n}), dx(dtype, {m, k}), dweight(kF32, {n, k}), dbias(kF32, {n});
      const auto workspace = workspace_for(m, n, k, dtype, dtype);
      const Shifted workspace2(workspace);
      const Context context = device_context();
      linear_forward(context, {x, weight, bias, y, {}, Activation::kTanh}, workspace);
      linear_forward(context, {x2.view, weight2.view, bias2.view, y2.view, {}, Activation::kTanh}, workspace2.view);
      linear_backward_input(context, {dy, weight, dx}, workspace);
      linear_backward_input(context, {dy2.view, weight2.view, dx2.view}, workspace2.view);
      linear_backward_weight(context, {x, dy, dweight, dbias}, workspace);
      linear_backward_weight(context, {x2.view, dy2.view, dweight2.view, dbias2.view}, workspace2.view);
      EXPECT_TRUE(all_close(y2.view, values_of(y), product_tolerance(dtype, k)));
      EXPECT_TRUE(all_close(dx2.view, values_of(dx), product_tolerance(dtype, n)));
      EXPECT_TRUE(all_close(dweight2.view, values_of(dweight), product_tolerance(kF32, m)));
      EXPECT_TRUE(same_bits(dbias2.view, dbias));
      EXPECT_TRUE(y2.memory.canaries_intact() && dx2.memory.canaries_intact() && workspace2.memory.canaries_intact());
      EXPECT_TRUE(dweight2.memory.canaries_intact() && dbias2.memory.canaries_intact());
    }
}

TEST_P(LinearOnDevice, BiasGradientOfManyRows) {
  for (int64_t m : {31, 255, 256, 257, 1100})
    for (int64_t n : {1, 24, 47, 320})
      for (DType dtype : tested_dtypes())
        for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
          SCOPED_TRACE(concat(m, " ", n, " ", to_string(dtype), " add ", mode == GradMode::kAdd));
          const auto dy = random_tensor(dtype, {m, n}, 1), x = random_tensor(dtype, {m, 3}, 2);
          const auto before = random_tensor(kF32, {n}, 3);
          auto dbias = before, beside = before, shifted = before;
          const Shifted dy2(dy);
          OwnedTensor dweight(kF32, {n, 3});
          const auto workspace = workspace_for(m, n, 0, dtype, kF32);
          linear_backward_weight(device_context(), {{}, dy, {}, dbias, mode, mode}, workspace);
          linear_backward_weight(device_context(), {x, dy, dweight, beside, mode, mode},
                                 workspace_for(m, n, 3, dtype, kF32));
          linear_backward_weight(device_context(), {{}, dy2.view, {}, shifted, mode, mode}, workspace);
          const auto size = [](int64_t extent) { return static_cast<size_t>(extent); };
          auto want = reference::linear_dbias({size(m), size(n), 0}, values_of(dy));
          const auto old = values_of(before);
          for (size_t j = 0; j < want.size() && mode == GradMode::kAdd; ++j) want[j] += old[j];
          EXPECT_TRUE(all_close(dbias, want, product_tolerance(kF32, m)));
          EXPECT_TRUE(same_bits(dbias, beside));
          EXPECT_TRUE(same_bits(dbias, shifted));
          EXPECT_TRUE(dbias.canaries_intact() && workspace.canaries_intact());
        }
}

TEST_P(LinearOnCuda, BiasGradientAloneNeedsItsPartOfTheWorkspace) {
  const auto dy = random_tensor(kF32, {257, 4}, 1);
  OwnedTensor dbias(kF32, {4});
  EXPECT_TRUE(throws_error(
      [&] {
        linear_backward_weight(device_context(), {{}, dy, {}, dbias}, {});
      },
      ErrorKind::kShapeMismatch, {"linear_backward_weight: workspace must be", "got none"}));
}

/// More weights than are converted at a time.
TEST_P(LinearOnDevice, ManyStoredWeightsUnderF32Compute) {
  const int64_t m = 2, many = 4501, terms = 1000;
  const auto x = random_tensor(kF32, {m, terms}, 1), bias = random_tensor(kF32, {many}, 2);
  const auto some = values_of(random_tensor(kBF16, {4099}, 3));
  std::vector<double> values(static_cast<size_t>(many * terms));
  for (size_t i = 0; i < values.size(); ++i) values[i] = some[i % some.size()];
  for (DType stored : {kBF16, kF16}) {
    SCOPED_TRACE(to_string(stored));
    const auto weight = make_tensor(stored, {many, terms}, values), turned = make_tensor(stored, {terms, many}, values);
    OwnedTensor y(kF32, {m, many}), dx(kF32, {m, many});
    linear_forward(device_context(), {x, weight, bias, y, {}}, workspace_for(m, many, terms, kF32, stored));
    linear_backward_input(device_context(), {x, turned, dx}, workspace_for(m, terms, many, kF32, stored));
    const auto rows = static_cast<size_t>(m), all = static_cast<size_t>(many), inner = static_cast<size_t>(terms);
    EXPECT_TRUE(all_close(y, reference::linear({rows, all, inner}, values_of(x), values_of(weight), values_of(bias)).y,
                          product_tolerance(kF32, terms)));
    EXPECT_TRUE(all_close(dx, reference::linear_dx({rows, inner, all}, values_of(x), values_of(turned)),
                          product_tolerance(kF32, terms)));
    EXPECT_TRUE(y.canaries_intact() && dx.canaries_intact());
  }
}

TEST_P(LinearOnCuda, Tf32RoundsOperandsOnlyWhereAllowed) {
  const int64_t m = 40, n = 48, k = 64;
  const auto x = random_tensor(kF32, {m, k}, 1), weight = random_tensor(kF32, {n, k}, 2);
  OwnedTensor exact(kF32, {m, n}), rounded(kF32, {m, n});
  const auto workspace = workspace_for(m, n, k, kF32, kF32);
  const Context context = device_context();
  linear_forward(context, {x, weight, {}, exact, {}}, workspace);
  cuda::allow_tf32(*context.stream.queue(), true);
  linear_forward(context, {x, weight, {}, rounded, {}}, workspace);
  cuda::allow_tf32(*context.stream.queue(), false);
  const auto size = [](int64_t extent) { return static_cast<size_t>(extent); };
  const auto xs = values_of(x), weights = values_of(weight), got = values_of(rounded);
  EXPECT_TRUE(
      all_close(exact, reference::linear({size(m), size(n), size(k)}, xs, weights, {}).y, product_tolerance(kF32, k)));
  for (size_t i = 0; i < size(m); ++i)
    for (size_t j = 0; j < size(n); ++j) {
      double want = 0, magnitude = 0;
      for (size_t r = 0; r < size(k); ++r) {
        const double term = xs[i * size(k) + r] * weights[j * size(k) + r];
        want += term, magnitude += std::abs(term);
      }
      // Each operand by half a unit of its 11th bit, some devices by a whole one; and a sum of k terms in f32.
      EXPECT_LE(std::abs(got[i * size(n) + j] - want), (2 * 0x1p-10 + static_cast<double>(k) * 0x1p-23) * magnitude);
    }
  EXPECT_NE(linear_choices(context).find("forward m=40 n=48 k=64 f32->f32 tf32"), std::string::npos);
  EXPECT_TRUE(!emulated() || !same_bits(exact, rounded));
}

std::string line_with(const std::string& text, const std::string& start) {
  const size_t begin = text.find(start);
  return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

TEST_P(LinearOnCuda, TuningStaysWithItsChoice) {
  const int64_t m = 61, n = 54, k = 58;
  const Context context = device_context();
  for (DType dtype : tested_dtypes()) {
    SCOPED_TRACE(to_string(dtype));
    const auto x = random_tensor(dtype, {m, k}, 1), weight = random_tensor(dtype, {n, k}, 2);
    const auto dy = random_tensor(dtype, {m, n}, 3), bias = random_tensor(kF32, {n}, 4);
    OwnedTensor y(kF32, {m, n}), dx(dtype, {m, k}), dweight(kF32, {n, k}), dbias(kF32, {n}), again = y;
    const auto workspace = workspace_for(m, n, k, dtype, dtype);
    const LinearForward forward{x, weight, bias, y, {}};
    linear_forward(context, forward, workspace);
    const std::string name = concat(" m=61 n=54 k=58 ", to_string(dtype), "->");
    EXPECT_NE(line_with(linear_choices(context), "forward" + name).find(" first"), std::string::npos);
    tune_linear(context, forward, workspace);
    tune_linear(context, LinearBackwardInput{dy, weight, dx}, workspace);
    tune_linear(context, LinearBackwardWeight{x, dy, dweight, dbias}, workspace);
    const std::string choices = linear_choices(context);
    for (const char* pass : {"forward", "backward_input", "backward_weight"}) {
      const std::string line = line_with(choices, pass + name);
      EXPECT_NE(line.find(" tuned"), std::string::npos) << line;
      // The emulation's fastest; those that would be faster still are not to be asked for.
      EXPECT_TRUE(!emulated() || line.find("split=3 reduction=2") != std::string::npos) << line;
    }
    tune_linear(context, forward, workspace);
    EXPECT_EQ(linear_choices(context), choices);
    linear_forward(context, forward, workspace);
    linear_forward(context, {x, weight, bias, again, {}}, workspace);
    EXPECT_TRUE(same_bits(y, again));
    const auto size = [](int64_t extent) { return static_cast<size_t>(extent); };
    const auto want =
        reference::linear({size(m), size(n), size(k)}, values_of(x), values_of(weight), values_of(bias)).y;
    EXPECT_TRUE(all_close(y, want, product_tolerance(kF32, k)));
  }
}

TEST_P(LinearOnDevice, TuningOnCpuAndRecord) {
  const auto x = random_tensor(kF32, {2, 3}, 1), weight = random_tensor(kF32, {4, 3}, 2);
  auto y = filled_tensor(kF32, {2, 4}, 0);
  tune_linear(device_context(), LinearForward{x, weight, {}, y, {}}, workspace_for(2, 4, 3, kF32, kF32));
  EXPECT_EQ(linear_choices(device_context()).empty(), !on_cuda());
  EXPECT_TRUE(on_cuda() || values_of(y) == std::vector<double>(8, 0.0));
}

TEST(LinearWorkspace, OfCudaIsBounded) {
  constexpr LinearPass kPasses[] = {LinearPass::kForward, LinearPass::kBackwardInput, LinearPass::kBackwardWeight};
  const auto bytes = [](LinearPass pass, int64_t m, int64_t n, int64_t k, DType compute, DType weight, int threads) {
    return linear_workspace_bytes(pass, m, n, k, compute, weight, threads, DeviceKind::kCuda);
  };
  for (LinearPass pass : kPasses) {
    EXPECT_EQ(bytes(pass, 0, 0, 0, kF32, kF32, 1), 0);
    EXPECT_EQ(bytes(pass, 3152, 768, 768, kBF16, kBF16, 1), bytes(pass, 3152, 768, 768, kBF16, kBF16, 16));
    EXPECT_LE(bytes(pass, 16, 64, 64, kBF16, kBF16, 1), int64_t{2} << 20);
    // 32 MiB for the library, 16 for weights, and what is proportional to one row, or to m / 256 of them.
    EXPECT_LE(bytes(pass, 4096, 50272, 2560, kF32, kF16, 1), (int64_t{48} << 20) + 4 * 50272 * 16 + 1024);
  }
}

}  // namespace
}  // namespace permafrost
