#include "core/kernels/shape_ops.h"

#include <cmath>

#include "tests/kernels/dtypes.h"
#include "tests/reference/shape_ops_ref.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class ShapeOpsTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, ShapeOpsTest, ::testing::Values(kCpu, Target::kCuda), target_name);

constexpr GradMode kModes[] = {GradMode::kOverwrite, GradMode::kAdd};

/// What `dst` holds afterwards: `values`, or the sum with what it held.
std::vector<double> by_mode(GradMode mode, const Tensor& before, const std::vector<double>& values) {
  return mode == GradMode::kAdd ? plus(values_of(before), values) : values;
}

/// A single rounding of the exact sum of two stored values: f32 sums once more, at most.
Tolerance one_rounding(DType dtype) {
  return {subnormal_of(dtype), dtype == kF32 ? 0x1p-24 : unit_of(dtype) + 0x1p-24};
}

size_t count(int64_t n) { return static_cast<size_t>(n); }

struct Case {
  Shape a, b;
};

TEST_P(ShapeOpsTest, AddSameShapeAndBroadcast) {
  const Case cases[] = {{{5}, {5}},       {{2, 3, 7}, {2, 3, 7}}, {{2, 3, 7}, {3, 7}},         {{2, 3, 7}, {7}},
                        {{2, 3, 7}, {1}}, {{4, 1}, {1}},          {{3, 101, 193}, {101, 193}}, {{2, 2}, {}}};
  for (const Case& test : cases) {
    if (test.b == Shape{1} && !(test.a[-1] == 1)) continue;  // (1) is a trailing shape of (..., 1) alone
    for (DType dtype : tested_dtypes())
      for (DType b_dtype : {kF32, kBF16, kF16}) {
        const auto a = random_tensor(dtype, test.a, 1), b = random_tensor(b_dtype, test.b, 2);
        const auto want = reference::add(values_of(a), values_of(b));
        auto out = filled_tensor(dtype, test.a, 0xff);
        add_forward(device_context(2), a, b, out);
        EXPECT_TRUE(all_close(out, want, one_rounding(dtype))) << test.a << " + " << test.b;
        EXPECT_TRUE(out.canaries_intact());
        add_forward(device_context(2), a, b, a);  // in place
        EXPECT_TRUE(same_bits(a, out));
      }
  }
}

TEST_P(ShapeOpsTest, AddRoundsOnceToNearestEven) {
  // 1 + 2^-8 lies halfway between two bf16 numbers; 1 + 2^-8 + 2^-20 does not.
  const auto a = make_tensor(kBF16, {3}, {1, 1, 1 + 0x1p-7});
  OwnedTensor out(kBF16, {3});
  add_forward(device_context(), a, make_tensor(kF32, {3}, {0x1p-8, 0x1p-8 + 0x1p-20, 0x1p-8}), out);
  EXPECT_TRUE(all_close(out, {1, 1 + 0x1p-7, 1 + 0x1p-6}, {}));
}

TEST_P(ShapeOpsTest, AccumulateConvertsAndAddsEveryPairOfDtypes) {
  for (DType from : {kF32, kBF16, kF16})
    for (DType to : {kF32, kBF16, kF16})
      for (GradMode mode : kModes)
        for (int64_t n : {0, 1, 17, 16385, 40001}) {
          const auto src = random_tensor(from, {n}, 1);
          auto dst = random_tensor(to, {n}, 2);
          const auto want = by_mode(mode, dst, values_of(src));
          accumulate(device_context(2), src, dst, mode);
          const double unit = to == kBF16 ? 0x1p-8 : to == kF16 ? 0x1p-11 : 0x1p-24;
          const double subnormal = to == kF16 ? 0x1p-25 : 0;
          EXPECT_TRUE(all_close(dst, want, {subnormal, unit + 0x1p-24}));
          EXPECT_TRUE(dst.canaries_intact());
        }
  auto same = random_tensor(kBF16, {100}, 3);
  const auto before = random_tensor(kBF16, {100}, 3);
  accumulate(device_context(), same, same, GradMode::kOverwrite);
  EXPECT_TRUE(same_bits(same, before));
}

TEST_P(ShapeOpsTest, AccumulateUnalignedPointers) {
  for (DType dtype : tested_dtypes()) {
    auto memory = random_tensor(dtype, {60}, 1);
    auto* raw = static_cast<std::byte*>(memory.view().raw());
    const Device device = memory.view().device();
    const Tensor src(raw + size_of(dtype), dtype, {21}, device), dst(raw + 33 * size_of(dtype), dtype, {21}, device);
    const auto want = plus(values_of(dst), values_of(src));
    const std::vector<double> before = values_of(memory);
    accumulate(device_context(), src, dst, GradMode::kAdd);
    EXPECT_TRUE(all_close(dst, want, one_rounding(dtype)));
    const std::vector<double> after = values_of(memory);
    for (size_t i = 0; i < 60; ++i)
      if (i < 33 || i >= 54) {
        EXPECT_EQ(after[i], before[i]) << i;
      }
  }
}

TEST_P(ShapeOpsTest, SumLeadingSumsInIndexOrder) {
  for (DType dtype : tested_dtypes())
    for (DType to : {kF32, dtype})
      for (GradMode mode : kModes)
        for (const Case& test :
             {Case{{5, 3, 7}, {7}}, {{5, 3, 7}, {3, 7}}, {{1, 4}, {4}}, {{9, 1000}, {1000}}, {{0, 4}, {4}}}) {
          const auto src = random_tensor(dtype, test.a, 1);
          auto dst = random_tensor(to, test.b, 2);
          const auto sum = reference::sum_leading(values_of(src), count(test.b.elements()));
          const auto want = by_mode(mode, dst, sum);
          sum_leading(device_context(2), src, dst, mode);
          const int64_t length = test.a.elements() / test.b.elements() + 1;
          EXPECT_TRUE(all_close(dst, want, tolerance_for(to, length, static_cast<double>(length))));
          EXPECT_TRUE(dst.canaries_intact());
        }
  // The order: (2^24 + 1) + 1 loses both ones in f32, another order does not.
  OwnedTensor sum(kF32, {1});
  sum_leading(device_context(), make_tensor(kF32, {3, 1}, {0x1p24, 1, 1}), sum, GradMode::kOverwrite);
  EXPECT_TRUE(all_close(sum, {0x1p24}, {}));
}

TEST_P(ShapeOpsTest, BroadcastLeadingRepeatsAndConverts) {
  for (DType from : {kF32, kBF16, kF16})
    for (DType to : tested_dtypes())
      for (int64_t copies : {0, 1, 3, 50}) {
        const auto src = random_tensor(from, {5, 101}, 1);
        auto dst = filled_tensor(to, {copies, 5, 101}, 0xff);
        broadcast_leading(device_context(2), src, dst);
        const auto want =
            make_tensor(to, {copies, 5, 101}, reference::broadcast_leading(values_of(src), count(copies)));
        EXPECT_TRUE(same_bits(dst, want));
        EXPECT_TRUE(dst.canaries_intact());
      }
}

TEST_P(ShapeOpsTest, ConcatTokensPutsPartsBehindEachOther) {
  for (DType dtype : tested_dtypes())
    for (int64_t width : {1, 5, 130}) {
      const std::vector<size_t> tokens{1, 0, 197, 3};
      std::vector<OwnedTensor> owned;
      std::vector<Tensor> parts;
      std::vector<std::vector<double>> values;
      for (size_t t : tokens) {
        owned.push_back(random_tensor(dtype, {3, static_cast<int64_t>(t), width}, t));
        parts.push_back(owned.back());
        values.push_back(values_of(owned.back()));
      }
      auto out = filled_tensor(dtype, {3, 201, width}, 0xff);
      concat_tokens(device_context(2), parts, out);
      EXPECT_TRUE(all_close(out, reference::concat_tokens(values, 3, tokens, count(width)), {}));
      EXPECT_TRUE(out.canaries_intact());
    }
}

TEST_P(ShapeOpsTest, SliceTokensForwardAndBackward) {
  for (DType dtype : tested_dtypes())
    for (GradMode mode : kModes)
      for (int64_t begin : {0, 2, 6})
        for (int64_t tokens : {0, 1, 3}) {
          const auto x = random_tensor(dtype, {4, 9, 37}, 1);
          auto out = random_tensor(dtype, {4, tokens, 37}, 2);
          const auto slice = reference::slice_tokens(values_of(x), 4, 9, 37, count(begin), count(begin + tokens));
          auto want = by_mode(mode, out, slice);
          slice_tokens(device_context(2), x, begin, out, mode);
          EXPECT_TRUE(all_close(out, want, one_rounding(dtype)));
          EXPECT_TRUE(out.canaries_intact());

          const auto dout = random_tensor(dtype, {4, tokens, 37}, 3);
          auto dx = random_tensor(dtype, {4, 9, 37}, 4);
          want =
              by_mode(mode, dx,
                      reference::slice_tokens_gradient(values_of(dout), 4, 9, 37, count(begin), count(begin + tokens)));
          slice_tokens_backward(device_context(2), dout, begin, dx, mode);
          EXPECT_TRUE(all_close(dx, want, one_rounding(dtype)));
          EXPECT_TRUE(dx.canaries_intact());
        }
}

TEST_P(ShapeOpsTest, OverwriteTokenForwardAndBackward) {
  for (DType dtype : tested_dtypes())
    for (int64_t row : {0, 4, 8}) {
      const auto x = random_tensor(dtype, {3, 9, 21}, 1), value = random_tensor(dtype, {3, 21}, 2);
      const auto want = reference::overwrite_token(values_of(x), values_of(value), 3, 9, 21, count(row));
      auto out = filled_tensor(dtype, {3, 9, 21}, 0xff);
      overwrite_token(device_context(2), x, value, row, out);
      EXPECT_TRUE(all_close(out, want, {}));
      EXPECT_TRUE(out.canaries_intact());
      overwrite_token(device_context(2), x, value, row, x);
      EXPECT_TRUE(same_bits(x, out));

      const auto dout = random_tensor(dtype, {3, 9, 21}, 3);
      const auto cut = reference::overwrite_token(values_of(dout), std::vector<double>(63), 3, 9, 21, count(row));
      for (GradMode mode : kModes) {
        auto dx = random_tensor(dtype, {3, 9, 21}, 4);
        const auto want_dx = by_mode(mode, dx, cut);
        overwrite_token_backward(device_context(2), dout, row, dx, mode);
        EXPECT_TRUE(all_close(dx, want_dx, one_rounding(dtype)));
        EXPECT_TRUE(dx.canaries_intact());
      }
      overwrite_token_backward(device_context(2), dout, row, dout, GradMode::kOverwrite);
      EXPECT_TRUE(all_close(dout, cut, {}));
    }
}

TEST(ShapeOps, GradientFormulasAgreeWithDuals) {
  const auto random = [](const Shape& shape, uint64_t seed) {
    return values_of(random_tensor(DType::kF64, shape, seed));
  };
  const auto x = random({2, 4, 3}, 1), cotangent = random({2, 4, 3}, 2), table = random({4, 3}, 3);
  EXPECT_TRUE(gradient_agrees(
      reference::sum_leading(cotangent, 12),
      [&](const auto& b) {
        using S = typename std::decay_t<decltype(b)>::value_type;
        return reference::add(std::vector<S>(x.begin(), x.end()), b);
      },
      table, cotangent));
  EXPECT_TRUE(gradient_agrees(
      reference::sum_leading(cotangent, 12), [&](const auto& b) { return reference::broadcast_leading(b, 2); }, table,
      cotangent));
  const auto part = random({2, 2, 3}, 4);
  EXPECT_TRUE(gradient_agrees(
      reference::slice_tokens_gradient(part, 2, 4, 3, 1, 3),
      [&](const auto& y) { return reference::slice_tokens(y, 2, 4, 3, 1, 3); }, x, part));
  EXPECT_TRUE(gradient_agrees(
      reference::slice_tokens(cotangent, 2, 4, 3, 1, 3),
      [&](const auto& y) {
        using Values = std::decay_t<decltype(y)>;
        return reference::concat_tokens<typename Values::value_type>({Values(6), y, Values(6)}, 2, {1, 2, 1}, 3);
      },
      part, cotangent));
  const auto value = random({2, 3}, 5);
  EXPECT_TRUE(gradient_agrees(
      reference::overwrite_token(cotangent, std::vector<double>(6), 2, 4, 3, 2),
      [&](const auto& y) {
        using Values = std::decay_t<decltype(y)>;
        return reference::overwrite_token(y, Values(value.begin(), value.end()), 2, 4, 3, 2);
      },
      x, cotangent));
  EXPECT_TRUE(gradient_agrees(
      reference::slice_tokens(cotangent, 2, 4, 3, 2, 3),
      [&](const auto& v) {
        using Values = std::decay_t<decltype(v)>;
        return reference::overwrite_token(Values(x.begin(), x.end()), v, 2, 4, 3, 2);
      },
      value, cotangent));
}

TEST_P(ShapeOpsTest, SameBitsForAnyNumberOfThreads) {
  const auto x = random_tensor(kBF16, {7, 60, 111}, 1), table = random_tensor(kF16, {60, 111}, 2);
  std::vector<OwnedTensor> first;
  for (int threads : {1, 2, 3}) {
    const Context context = device_context(threads);
    std::vector<OwnedTensor> results;
    results.push_back(OwnedTensor(kBF16, {7, 60, 111}));
    add_forward(context, x, table, results.back());
    results.push_back(random_tensor(kF32, {60, 111}, 3));
    sum_leading(context, x, results.back(), GradMode::kAdd);
    results.push_back(random_tensor(kF32, {7, 60, 111}, 4));
    accumulate(context, x, results.back(), GradMode::kAdd);
    results.push_back(random_tensor(kBF16, {7, 50, 111}, 5));
    slice_tokens(context, x, 9, results.back(), GradMode::kAdd);
    if (first.empty())
      first = std::move(results);
    else
      for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(same_bits(results[i], first[i])) << i;
  }
}

TEST_P(ShapeOpsTest, NanStaysNan) {
  const auto x = make_tensor(kF32, {2, 1, 2}, {1, NAN, 2, 3});
  OwnedTensor out(kBF16, {2, 1, 2}), sum(kF32, {2});
  accumulate(device_context(), x, out, GradMode::kAdd);
  EXPECT_TRUE(std::isnan(values_of(out)[1]));
  sum_leading(device_context(), out, sum, GradMode::kOverwrite);
  EXPECT_EQ(values_of(sum)[0], 3);
  EXPECT_TRUE(std::isnan(values_of(sum)[1]));
  add_forward(device_context(), out, make_tensor(kF32, {2}, {NAN, 0}), out);
  EXPECT_TRUE(std::isnan(values_of(out)[0]) && std::isnan(values_of(out)[2]));
}

TEST_P(ShapeOpsTest, EmptySizes) {
  const Context c = device_context(2);
  const auto none = [](const Shape& shape) { return OwnedTensor(kF32, shape); };
  add_forward(c, none({0, 4}), none({4}), none({0, 4}));
  add_forward(c, none({3, 0}), none({0}), none({3, 0}));
  broadcast_leading(c, none({0}), none({3, 0}));
  sum_leading(c, none({3, 0}), none({0}), GradMode::kAdd);
  concat_tokens(c, std::vector<Tensor>{}, none({2, 0, 3}));
  slice_tokens(c, none({0, 3, 2}), 1, none({0, 2, 2}));
  overwrite_token(c, none({0, 3, 2}), none({0, 2}), 1, none({0, 3, 2}));
  auto dx = filled_tensor(kF32, {2, 3, 2}, 0xff);
  slice_tokens_backward(c, none({2, 0, 2}), 3, dx, GradMode::kOverwrite);
  EXPECT_TRUE(all_close(dx, std::vector<double>(12), {}));
}

TEST_P(ShapeOpsTest, Errors) {
  const Context c = device_context();
  const OwnedTensor a(kF32, {2, 3, 4}), b(kF32, {3, 4}), wrong(kF32, {2, 4}), narrow(kBF16, {2, 3, 4});
  const auto shape = ErrorKind::kShapeMismatch;
  const auto overwrite = GradMode::kOverwrite;
  EXPECT_TRUE(throws_error([&] { add_forward(c, a, wrong, a); }, shape,
                           {"add: b must have the trailing axes of a (2, 3, 4); got (2, 4) f32"}));
  EXPECT_TRUE(throws_error([&] { add_forward(c, a, b, narrow); }, shape,
                           {"add: out must be (2, 3, 4) f32; got (2, 3, 4) bf16"}));
  EXPECT_TRUE(throws_error([&] { add_forward(c, OwnedTensor(DType::kF64, {4}), b, b); }, shape,
                           {"add: a must be", on_cuda() ? "f32, bf16 or f16" : "f32 or bf16", "; got (4) f64"}));
  if (!on_cuda()) {
    EXPECT_TRUE(throws_error([&] { add_forward(c, OwnedTensor(kF16, {4}), b, b); }, shape, {"got (4) f16"}));
  }
  EXPECT_TRUE(throws_error([&] { add_forward(c, a, Tensor(), a); }, shape, {"add: b must be", "got none"}));
  EXPECT_TRUE(throws_error([&] { accumulate(c, a, b, overwrite); }, shape,
                           {"accumulate: dst must be (2, 3, 4) f32, bf16 or f16; got (3, 4) f32"}));
  EXPECT_TRUE(throws_error([&] { sum_leading(c, a, wrong, overwrite); }, shape,
                           {"sum_leading: dst must have the trailing axes of src (2, 3, 4); got (2, 4) f32"}));
  EXPECT_TRUE(throws_error(
      [&] {
        sum_leading(c, a, OwnedTensor(kBF16, {3, 4}), overwrite);
      },
      shape, {"sum_leading: dst", "got (3, 4) bf16"}));
  EXPECT_TRUE(throws_error([&] { broadcast_leading(c, wrong, a); }, shape,
                           {"broadcast_leading: src must have the trailing axes of dst (2, 3, 4); got (2, 4) f32"}));
  const auto cat = [&](std::vector<Tensor> parts) { return [=] { concat_tokens(c, parts, a); }; };
  EXPECT_TRUE(throws_error(cat({a, a}), shape, {"concat_tokens: parts must have the 3 tokens of out together; got 6"}));
  EXPECT_TRUE(
      throws_error(cat({a, narrow}), shape, {"concat_tokens: part 1 must be (B, t, C) f32; got (2, 3, 4) bf16"}));
  EXPECT_TRUE(
      throws_error(cat({OwnedTensor(kF32, {2, 3, 5})}), shape, {"part 0 must be (2, 3, 4) f32; got (2, 3, 5) f32"}));
  const OwnedTensor part(kF32, {2, 2, 4});
  EXPECT_TRUE(throws_error([&] { slice_tokens(c, a, 2, part); }, shape,
                           {"slice_tokens: tokens must lie within the 3 of x; got 2..4"}));
  EXPECT_TRUE(throws_error([&] { slice_tokens(c, a, -1, part); }, shape, {"got -1..1"}));
  EXPECT_TRUE(throws_error([&] { slice_tokens(c, a, 0, narrow); }, shape, {"slice_tokens: out must be (B, t, C) f32"}));
  EXPECT_TRUE(throws_error([&] { slice_tokens_backward(c, part, 2, a, overwrite); }, shape,
                           {"slice_tokens_backward: tokens must lie within the 3 of dx; got 2..4"}));
  const OwnedTensor value(kF32, {2, 4});
  EXPECT_TRUE(throws_error([&] { overwrite_token(c, a, value, 3, a); }, shape,
                           {"overwrite_token: row must lie within 3 tokens; got 3"}));
  EXPECT_TRUE(throws_error([&] { overwrite_token(c, a, b, 0, a); }, shape,
                           {"overwrite_token: value must be (2, 4) f32; got (3, 4) f32"}));
  EXPECT_TRUE(throws_error([&] { overwrite_token_backward(c, a, -1, a, overwrite); }, shape,
                           {"overwrite_token_backward: row must lie within 3 tokens; got -1"}));
}

}  // namespace
}  // namespace permafrost
