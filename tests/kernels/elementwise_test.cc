#include "core/kernels/elementwise.h"

#include <bit>
#include <cmath>
#include <limits>

#include "core/device/cpu_features.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;
using namespace permafrost::cpu;

/// Bit patterns that reach every branch of the conversions: all f16 as floats, their neighbours, specials, random bits.
std::vector<float> awkward_floats() {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    float16 half;
    half.bits = static_cast<uint16_t>(bits);
    const float value = static_cast<float>(half);
    const uint32_t u = std::bit_cast<uint32_t>(value);
    for (uint32_t neighbour : {u - 1, u, u + 1, u ^ 0x1000u, (bits << 16) | 0x8000u, (bits << 16) | 0x7fffu})
      values.push_back(std::bit_cast<float>(neighbour));
  }
  Random random(1, RandomPurpose::kSynthetic);
  for (int i = 0; i < 100000; ++i) values.push_back(std::bit_cast<float>(random.next_u32()));
  return values;
}

/// Like the scalar conversion of dtype.h; a NaN only has to stay one.
template <typename T>
void expect_conversion(const ElementLoops& loops, DType dtype, const std::vector<float>& values) {
  const auto n = static_cast<int64_t>(values.size());
  std::vector<T> got(values.size());
  loops.convert(DType::kF32, values.data(), dtype, got.data(), n);
  std::vector<float> back(values.size());
  loops.convert(dtype, got.data(), DType::kF32, back.data(), n);
  for (size_t i = 0; i < values.size(); ++i) {
    const float want = static_cast<float>(T(values[i]));
    if (std::isnan(values[i])) {
      ASSERT_TRUE(std::isnan(back[i])) << std::hex << std::bit_cast<uint32_t>(values[i]);
    } else {
      ASSERT_EQ(got[i].bits, T(values[i]).bits) << std::hex << std::bit_cast<uint32_t>(values[i]);
      ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(want));
    }
  }
}

TEST(Elementwise, ConversionsRoundToNearestEven) {
  const std::vector<float> values = awkward_floats();
  for (const ElementLoops* loops : {&kElementLoopsBaseline, &element_loops()}) {
    expect_conversion<bfloat16>(*loops, DType::kBF16, values);
    expect_conversion<float16>(*loops, DType::kF16, values);
  }
}

TEST(Elementwise, EveryInstructionSetGivesTheSameBits) {
  if (!cpu_features().avx512) GTEST_SKIP() << "this processor has no AVX-512: one build only";
  const DType dtypes[] = {DType::kF32, DType::kBF16, DType::kF16};
  for (DType from : dtypes)
    for (DType to : dtypes)
      for (int64_t n : {0, 1, 15, 16, 17, 1000}) {
        const auto source = random_tensor(from, {n}, 2), start = random_tensor(to, {n}, 3);
        const auto expect_same = [&](auto&& call) {
          OwnedTensor a = random_tensor(to, {n}, 3), b = random_tensor(to, {n}, 3);
          call(kElementLoopsBaseline, a.view().raw());
          call(kElementLoopsAvx512, b.view().raw());
          EXPECT_TRUE(same_bits(a, b));
          EXPECT_TRUE(a.canaries_intact() && b.canaries_intact());
        };
        expect_same([&](const ElementLoops& l, void* out) { l.convert(from, source.view().raw(), to, out, n); });
        expect_same([&](const ElementLoops& l, void* out) { l.accumulate(from, source.view().raw(), to, out, n); });
        expect_same([&](const ElementLoops& l, void* out) {
          l.add(to, start.view().raw(), from, source.view().raw(), out, n);
        });
        if (to == DType::kF16) continue;
        for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd})
          expect_same([&](const ElementLoops& l, void* out) { l.scale(to, 0.3f, start.view().raw(), out, n, mode); });
      }
}

}  // namespace
}  // namespace permafrost
