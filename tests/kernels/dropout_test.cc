#include "core/kernels/dropout.h"

#include <cmath>

#include "core/device/cpu_features.h"
#include "core/kernels/dropout_cpu.h"
#include "tests/kernels/dtypes.h"
#include "tests/reference/dropout_ref.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class DropoutTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, DropoutTest, ::testing::Values(kCpu, Target::kCuda), target_name);

OwnedTensor address_of(uint64_t seed, uint32_t epoch, const std::vector<int64_t>& samples) {
  OwnedTensor address(DType::kI64, {2 + static_cast<int64_t>(samples.size())});
  int64_t* words = address.view().data<int64_t>();
  words[0] = static_cast<int64_t>(seed);
  words[1] = epoch;
  std::copy(samples.begin(), samples.end(), words + 2);
  return address;
}

OwnedTensor ones(DType dtype, const Shape& shape) {
  return make_tensor(dtype, shape, std::vector<double>(static_cast<size_t>(shape.elements()), 1.0));
}

/// Factors of a batch: those of its samples behind each other.
std::vector<double> batch_factors(uint64_t seed, uint32_t epoch, const std::vector<int64_t>& samples, uint32_t layer,
                                  float p, size_t elements) {
  std::vector<double> factors;
  for (int64_t sample : samples) {
    const auto one = reference::dropout_factors(seed, epoch, static_cast<uint64_t>(sample), layer, p, elements);
    factors.insert(factors.end(), one.begin(), one.end());
  }
  return factors;
}

TEST_P(DropoutTest, DrawsAreThoseOfTheContract) {
  const uint64_t seed = 0xfedcba9876543210u;
  const std::vector<int64_t> samples{5, int64_t{1} << 40, 0};
  for (DType dtype : tested_dtypes())
    for (int64_t n : {1, 3, 64, 65, 1027, 40001})
      for (float p : {0.0f, 0.1f, 0.5f, 0.97f})
        for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
          const auto x = random_tensor(dtype, {3, n}, 1);
          auto out = random_tensor(dtype, {3, n}, 2);
          const auto factors = batch_factors(seed, 7, samples, 11, p, static_cast<size_t>(n));
          auto want = reference::dropout(values_of(x), factors);
          const auto before = values_of(out);
          if (mode == GradMode::kAdd)
            for (size_t i = 0; i < want.size(); ++i) want[i] += before[i];
          dropout(device_context(2), x, address_of(seed, 7, samples), 11, p, out, mode);
          // The scale and the product round once each in f32 (relative), the sum once more (|values| < 6 * 34).
          const double sum = mode == GradMode::kAdd ? 204 * 0x1p-23 : 0;
          EXPECT_TRUE(all_close(out, want, {sum + subnormal_of(dtype), unit_of(dtype) + 2 * 0x1p-24}));
          EXPECT_TRUE(out.canaries_intact());
        }
}

TEST_P(DropoutTest, KnownPhiloxAddress) {
  // Sample 9 of epoch 2, layer 3, seed 1: key = first words of philox({kDropout, layer, 0, 0}, seed), counter =
  // {block, sample, sample >> 32, epoch}; element 4 b + w belongs to word w of block b.
  const auto mixed = philox4x32({4, 3, 0, 0}, {1, 0});
  OwnedTensor out(kF32, {1, 12});
  dropout(device_context(), ones(kF32, {1, 12}), address_of(1, 2, {9}), 3, 0.25f, out, GradMode::kOverwrite);
  for (uint32_t block = 0; block < 3; ++block) {
    const auto words = philox4x32({block, 9, 0, 2}, {mixed[0], mixed[1]});
    for (size_t word = 0; word < 4; ++word)
      EXPECT_EQ(values_of(out)[4 * block + word], words[word] >= 0x40000000u ? static_cast<double>(1.0f / 0.75f) : 0.0);
  }
}

TEST_P(DropoutTest, ForwardAndBackwardUseTheSameMask) {
  const auto address = address_of(3, 1, {4, 8});
  const auto x = ones(kBF16, {2, 3001}), dout = random_tensor(kF32, {2, 3001}, 5);
  OwnedTensor y(kBF16, {2, 3001}), dx(kF32, {2, 3001});
  dropout(device_context(1), x, address, 6, 0.3f, y, GradMode::kOverwrite);
  dropout(device_context(2), dout, address, 6, 0.3f, dx, GradMode::kOverwrite);
  const auto kept = values_of(y), gradient = values_of(dx), upstream = values_of(dout);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(gradient[i] == 0, kept[i] == 0 || upstream[i] == 0) << i;
}

TEST(Dropout, GradientFormulaAgreesWithDuals) {
  const auto factors = batch_factors(3, 1, {4}, 6, 0.3f, 20);
  const auto x = values_of(random_tensor(DType::kF64, {20}, 1)), dout = values_of(random_tensor(DType::kF64, {20}, 2));
  EXPECT_TRUE(gradient_agrees(
      reference::dropout(dout, factors), [&](const auto& v) { return reference::dropout(v, factors); }, x, dout));
}

TEST_P(DropoutTest, MaskOfASampleDependsOnItsAddressAlone) {
  const int64_t n = 5003;
  const auto mask = [&](uint64_t seed, uint32_t epoch, const std::vector<int64_t>& samples, uint32_t layer,
                        int threads) {
    const Shape shape{static_cast<int64_t>(samples.size()), n};
    OwnedTensor out(kF32, shape);
    dropout(device_context(threads), ones(kF32, shape), address_of(seed, epoch, samples), layer, 0.5f, out,
            GradMode::kOverwrite);
    return values_of(out);
  };
  const auto alone = mask(1, 0, {17}, 2, 1);
  const auto among = mask(1, 0, {3, 17, 99, 17}, 2, 3);
  const auto at_row = [&](size_t row) {
    return std::vector<double>(among.begin() + static_cast<int64_t>(row) * n,
                               among.begin() + static_cast<int64_t>(row + 1) * n);
  };
  EXPECT_EQ(at_row(1), alone);
  EXPECT_EQ(at_row(3), alone);
  EXPECT_NE(at_row(0), alone);
  EXPECT_NE(mask(2, 0, {17}, 2, 1), alone);
  EXPECT_NE(mask(1, 1, {17}, 2, 1), alone);
  EXPECT_NE(mask(1, 0, {17}, 3, 1), alone);
}

TEST_P(DropoutTest, KeepsTheStatedShare) {
  const int64_t n = 200000;
  for (float p : {0.05f, 0.1f, 0.5f, 0.9f}) {
    OwnedTensor out(kF32, {2, n});
    dropout(device_context(2), ones(kF32, {2, n}), address_of(12, 0, {0, 1}), 0, p, out, GradMode::kOverwrite);
    double kept = 0;
    for (double value : values_of(out)) kept += value != 0;
    const double draws = 2.0 * static_cast<double>(n), keep = 1.0 - static_cast<double>(p);
    EXPECT_LE(std::abs(kept - draws * keep), 5 * std::sqrt(draws * keep * (1 - keep)))
        << p;  // five standard deviations
  }
}

TEST(Dropout, EveryInstructionSetGivesTheSameBits) {
  if (!cpu_features().avx512) GTEST_SKIP() << "this processor has no AVX-512: one build only";
  const cpu::DropoutFactors factors{{0, 1, 2, 3}, {4, 5}, 0x800000, 2.0f};
  for (int64_t n : {1, 4, 63, 64, 1024}) {
    std::vector<float> a(cpu::kDropoutPiece, -1), b(cpu::kDropoutPiece, -1);
    cpu::kDropoutLoopsBaseline.draw(factors, 0xfffffff0u, n, a.data());
    cpu::kDropoutLoopsAvx512.draw(factors, 0xfffffff0u, n, b.data());
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) EXPECT_EQ(a[i], b[i]) << i;
    for (DType dtype : {kF32, kBF16})
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
        const auto x = random_tensor(dtype, {n}, 1);
        OwnedTensor first = random_tensor(dtype, {n}, 2), second = random_tensor(dtype, {n}, 2);
        cpu::kDropoutLoopsBaseline.apply(dtype, x.view().raw(), a.data(), first.view().raw(), n, mode);
        cpu::kDropoutLoopsAvx512.apply(dtype, x.view().raw(), a.data(), second.view().raw(), n, mode);
        EXPECT_TRUE(same_bits(first, second));
      }
  }
}

TEST_P(DropoutTest, InPlaceEmptyAndNan) {
  const auto address = address_of(3, 1, {4, 8});
  const auto x = random_tensor(kBF16, {2, 77, 5}, 1);
  OwnedTensor out(kBF16, {2, 77, 5});
  dropout(device_context(), x, address, 6, 0.3f, out, GradMode::kOverwrite);
  dropout(device_context(), x, address, 6, 0.3f, x, GradMode::kOverwrite);
  EXPECT_TRUE(same_bits(x, out));
  dropout(device_context(), OwnedTensor(kF32, {2, 0}), address, 6, 0.3f, OwnedTensor(kF32, {2, 0}), GradMode::kAdd);
  dropout(device_context(), OwnedTensor(kF32, {0, 4}), address_of(3, 1, {}), 6, 0.3f, OwnedTensor(kF32, {0, 4}),
          GradMode::kAdd);
  OwnedTensor nans = make_tensor(kF32, {2, 50}, std::vector<double>(100, NAN));
  dropout(device_context(), nans, address, 6, 0.5f, nans, GradMode::kOverwrite);
  for (double value : values_of(nans)) EXPECT_TRUE(std::isnan(value));
}

TEST_P(DropoutTest, Errors) {
  const Context c = device_context();
  const OwnedTensor x(kF32, {2, 3});
  const auto address = address_of(1, 0, {0, 1});
  const auto call = [&](Tensor in, Tensor a, float p, Tensor out) {
    return [=] { dropout(c, in, a, 0, p, out, GradMode::kOverwrite); };
  };
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  EXPECT_TRUE(throws_error(call(x, address, 1.0f, x), argument, {"dropout: p must lie in [0, 1); got 1"}));
  EXPECT_TRUE(throws_error(call(x, address, -0.5f, x), argument, {"got -0.5"}));
  EXPECT_TRUE(throws_error(call(x, address, NAN, x), argument, {"got nan"}));
  EXPECT_TRUE(
      throws_error(call(x, address_of(1, 0, {0}), 0.5f, x), shape, {"dropout: address must be (4) i64; got (3) i64"}));
  EXPECT_TRUE(throws_error(call(x, address, 0.5f, OwnedTensor(kBF16, {2, 3})), shape,
                           {"dropout: out must be (2, 3) f32; got (2, 3) bf16"}));
  EXPECT_TRUE(throws_error(call(OwnedTensor(kF32, {}), address, 0.5f, x), shape,
                           {"dropout: x must have a batch axis; got () f32"}));
  address.view().data<int64_t>()[1] = -1;
  EXPECT_TRUE(throws_error(call(x, address, 0.5f, x), argument, {"dropout: epoch must fit 32 bits; got -1"}));
}

}  // namespace
}  // namespace permafrost
