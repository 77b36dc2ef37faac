#include "core/kernels/cross_entropy.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/device/cpu_features.h"
#include "core/kernels/cross_entropy_cpu.h"
#include "tests/kernels/dtypes.h"
#include "tests/reference/cross_entropy_ref.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr double kUnit = 0x1p-24;

class CrossEntropyTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, CrossEntropyTest, ::testing::Values(kCpu, Target::kCuda), target_name);

struct Problem {
  OwnedTensor logits, labels, weights;
  std::vector<int32_t> label_values;
  float smoothing = 0;
  int64_t rows() const { return logits.view().dim(0); }
  int64_t classes() const { return logits.view().dim(1); }
};

OwnedTensor label_tensor(const std::vector<int32_t>& labels) {
  return make_tensor(DType::kI32, {static_cast<int64_t>(labels.size())}, {labels.begin(), labels.end()});
}

Problem random_problem(DType dtype, int64_t rows, int64_t classes, float smoothing, double scale = 3.0) {
  Problem p;
  p.logits = random_tensor(dtype, {rows, classes}, 1, scale);
  p.weights = random_tensor(kF32, {rows}, 2);
  p.smoothing = smoothing;
  Random random(3, RandomPurpose::kSynthetic);
  for (int64_t r = 0; r < rows; ++r)
    p.label_values.push_back(r % 5 == 3 ? -100
                                        : static_cast<int32_t>(random.next_below(static_cast<uint64_t>(classes))));
  p.labels = label_tensor(p.label_values);
  return p;
}

/// Absolute error of a row's log-sum-exp relative to its maximum: exp within 2 units of its argument's rounding
/// (|x - max| units), a sum of V terms, the logarithm's own rounding.
double log_sum_error(const Problem& p) {
  double range = 0, largest = 0;
  for (double x : values_of(p.logits)) largest = std::max(largest, std::abs(x));
  range = 2 * largest;
  return kUnit * (4 * std::sqrt(static_cast<double>(p.classes())) + 16 + 2 * range);
}

Tolerance loss_tolerance(const Problem& p) { return {log_sum_error(p), 2 * kUnit}; }

/// weight * (softmax - target): relative error of the softmax = absolute error of lse, of which the rounding of lse
/// itself is part, and of the stored dtype's rounding.
Tolerance gradient_tolerance(const Problem& p, DType dtype, double max_weight) {
  double largest = 0;
  for (double x : values_of(p.logits)) largest = std::max(largest, std::abs(x));
  return {max_weight * (log_sum_error(p) + kUnit * (largest + 12)), dtype == kF32 ? 2 * kUnit : unit_of(dtype)};
}

struct Result {
  OwnedTensor loss, lse, dlogits;
};

Result run(const Problem& p, DType dlogits_dtype, int threads = 2) {
  Result r{filled_tensor(kF32, {p.rows()}, 0xff), filled_tensor(kF32, {p.rows()}, 0xff),
           filled_tensor(dlogits_dtype, {p.rows(), p.classes()}, 0xff)};
  cross_entropy_forward(device_context(threads), p.logits, p.labels, p.smoothing, r.loss, r.lse);
  cross_entropy_backward(device_context(threads), p.logits, p.labels, r.lse, p.weights, p.smoothing, r.dlogits);
  EXPECT_TRUE(r.loss.canaries_intact() && r.lse.canaries_intact() && r.dlogits.canaries_intact());
  return r;
}

double largest_weight(const Problem& p) {
  double largest = 0;
  for (double w : values_of(p.weights)) largest = std::max(largest, std::abs(w));
  return largest;
}

TEST_P(CrossEntropyTest, AgreesWithTheReference) {
  for (DType dtype : tested_dtypes())
    for (int64_t classes : {1, 2, 15, 16, 17, 63, 65, 130, 4099, 50272})
      for (float smoothing : {0.0f, 0.1f}) {
        const Problem p = random_problem(dtype, classes > 1000 ? 4 : 11, classes, smoothing);
        const auto want = reference::cross_entropy(values_of(p.logits), p.label_values, static_cast<size_t>(classes),
                                                   static_cast<double>(smoothing));
        const auto gradient =
            reference::cross_entropy_gradient(values_of(p.logits), p.label_values, static_cast<size_t>(classes),
                                              static_cast<double>(smoothing), values_of(p.weights));
        for (DType out : tested_dtypes()) {
          const Result r = run(p, out);
          EXPECT_TRUE(all_close(r.loss, want, loss_tolerance(p))) << "V=" << classes;
          EXPECT_TRUE(all_close(r.dlogits, gradient, gradient_tolerance(p, out, largest_weight(p)))) << "V=" << classes;
        }
      }
}

TEST(CrossEntropy, GradientFormulaAgreesWithDuals) {
  const std::vector<int32_t> labels{2, -100, 0};
  const auto logits = values_of(random_tensor(DType::kF64, {3, 5}, 1, 2.0));
  const auto weights = values_of(random_tensor(DType::kF64, {3}, 2));
  for (double smoothing : {0.0, 0.2})
    EXPECT_TRUE(gradient_agrees(
        reference::cross_entropy_gradient(logits, labels, 5, smoothing, weights),
        [&](const auto& x) { return reference::cross_entropy(x, labels, 5, smoothing); }, logits, weights));
}

/// One golden case: token losses, sums per sample and both published reductions.
void check_golden(const Golden& golden, const std::string& name) {
  const Shape shape = golden.shape(name + ".logits");
  const int64_t batch = shape[0], tokens = shape[1], rows = batch * tokens;
  Problem p;
  p.logits = make_tensor(kF32, {rows, shape[2]}, golden.values(name + ".logits"));
  for (double label : golden.values(name + ".labels")) p.label_values.push_back(static_cast<int32_t>(label));
  p.labels = label_tensor(p.label_values);
  p.smoothing = static_cast<float>(golden.number(name + ".smoothing"));
  double counted = 0;
  for (int32_t label : p.label_values) counted += label != -100;

  const auto check = [&](const std::string& loss_name, const std::string& gradient_name, double weight) {
    p.weights = make_tensor(kF32, {rows}, std::vector<double>(static_cast<size_t>(rows), weight));
    const Result r = run(p, kF32);
    // smoothing = 0.1f instead of 0.1 moves a loss of that size by 2^-24 of it.
    Tolerance tolerance = loss_tolerance(p);
    EXPECT_TRUE(all_close(r.loss, golden.values(name + ".token_loss"), tolerance));
    EXPECT_TRUE(all_close(r.dlogits, golden.values(name + gradient_name), gradient_tolerance(p, kF32, weight)));
    OwnedTensor loss(DType::kF64, {1});
    weighted_sum(device_context(), r.loss, p.weights, loss);
    tolerance.absolute *= static_cast<double>(rows) * weight;
    EXPECT_TRUE(all_close(loss, golden.values(name + loss_name), tolerance));

    const auto sums = golden.values(name + ".sample_sum");
    for (int64_t b = 0; b < batch; ++b) {
      std::vector<double> of_sample(static_cast<size_t>(rows));
      std::fill_n(of_sample.begin() + b * tokens, tokens, 1.0);
      weighted_sum(device_context(), r.loss, make_tensor(kF32, {rows}, of_sample), loss);
      EXPECT_TRUE(all_close(loss, {sums[static_cast<size_t>(b)]},
                            {loss_tolerance(p).absolute * static_cast<double>(tokens), 2 * kUnit}));
    }
  };
  check(".loss_sample_sum", ".dlogits_sample_sum", 1.0 / static_cast<double>(batch));
  if (golden.has(name + ".loss_token_mean")) check(".loss_token_mean", ".dlogits_token_mean", 1.0 / counted);
}

TEST_P(CrossEntropyTest, Goldens) {
  const Golden golden("cross_entropy.safetensors");
  for (const std::string& name : golden.cases()) {
    SCOPED_TRACE(name);
    check_golden(golden, name);
  }
}

TEST_P(CrossEntropyTest, LargeLogitsStayFinite) {
  const auto logits = make_tensor(kF32, {3, 3}, {3e38, 0, -3e38, 1e30, 1e30, -1e30, -3e38, -3e38, -3e38});
  const auto labels = label_tensor({0, 1, 2}), weights = make_tensor(kF32, {3}, {1, 1, 1});
  OwnedTensor loss(kF32, {3}), lse(kF32, {3}), dlogits(kF32, {3, 3});
  cross_entropy_forward(device_context(), logits, labels, 0, loss, lse);
  EXPECT_TRUE(all_close(loss, {0, std::log(2.0), std::log(3.0)}, {4 * kUnit, 0}));
  cross_entropy_backward(device_context(), logits, labels, lse, weights, 0, dlogits);
  for (double d : values_of(dlogits)) EXPECT_TRUE(std::abs(d) <= 1);
  // A class that is masked out by -inf has probability 0 and gradient 0.
  const auto masked = make_tensor(kF32, {1, 3}, {1, -INFINITY, 1});
  OwnedTensor one(kF32, {1}), of_one(kF32, {1}), gradient(kF32, {1, 3});
  cross_entropy_forward(device_context(), masked, label_tensor({0}), 0, one, of_one);
  EXPECT_TRUE(all_close(one, {std::log(2.0)}, {4 * kUnit, 0}));
  cross_entropy_backward(device_context(), masked, label_tensor({0}), of_one, make_tensor(kF32, {1}, {1}), 0, gradient);
  EXPECT_TRUE(all_close(gradient, {-0.5, 0, 0.5}, {8 * kUnit, 0}));
}

TEST_P(CrossEntropyTest, GradientInPlaceGivesTheSameBits) {
  for (DType dtype : tested_dtypes()) {
    const Problem p = random_problem(dtype, 7, 1003, 0.1f);
    const Result r = run(p, dtype);
    cross_entropy_backward(device_context(), p.logits, p.labels, r.lse, p.weights, p.smoothing, p.logits);
    EXPECT_TRUE(same_bits(p.logits, r.dlogits));
  }
}

TEST_P(CrossEntropyTest, SameBitsForAnyNumberOfThreads) {
  for (int64_t classes : {3, 1000, 50272}) {
    const Problem p = random_problem(kBF16, classes == 3 ? 20000 : 17, classes, 0.1f);
    const Result one = run(p, kBF16, 1);
    for (int threads : {2, 3}) {
      const Result many = run(p, kBF16, threads);
      EXPECT_TRUE(same_bits(many.loss, one.loss) && same_bits(many.lse, one.lse) &&
                  same_bits(many.dlogits, one.dlogits));
    }
  }
}

TEST_P(CrossEntropyTest, ARowDoesNotDependOnItsPlace) {
  const Problem p = random_problem(kF32, 3, 77, 0.1f);
  const Result whole = run(p, kF32);
  OwnedTensor loss(kF32, {1});
  for (int64_t row = 0; row < 3; ++row) {
    cross_entropy_forward(device_context(), p.logits.view().rows(row, row + 1), p.labels.view().rows(row, row + 1),
                          p.smoothing, loss, Tensor());
    EXPECT_TRUE(same_bits(loss, whole.loss.view().rows(row, row + 1)));
  }
}

TEST_P(CrossEntropyTest, SameBitsAtAnyAlignment) {
  for (DType dtype : tested_dtypes())
    for (int64_t classes : {64, 1032, 5000}) {
      Problem p = random_problem(dtype, 3, classes, 0.1f);
      const Result here = run(p, dtype);
      const int64_t n = 3 * classes;
      const OwnedTensor memory(dtype, {n + 1}), gradient_memory(dtype, {n + 1});
      const Tensor logits = memory.view().rows(1, n + 1).reshaped({3, classes});
      const Tensor gradient = gradient_memory.view().rows(1, n + 1).reshaped({3, classes});
      finish_kernels();
      std::memcpy(logits.raw(), p.logits.view().raw(), static_cast<size_t>(logits.bytes()));
      const OwnedTensor loss(kF32, {3}), lse(kF32, {3});
      cross_entropy_forward(device_context(), logits, p.labels, p.smoothing, loss, lse);
      cross_entropy_backward(device_context(), logits, p.labels, lse, p.weights, p.smoothing, gradient);
      EXPECT_TRUE(same_bits(loss, here.loss) && same_bits(lse, here.lse) && same_bits(gradient, here.dlogits));
    }
}

TEST_P(CrossEntropyTest, MaskedClassesCountNothingWhereverTheyStand) {
  // Whole chunks of -inf before, between and behind the others.
  const int64_t classes = 1100;
  std::vector<double> values(static_cast<size_t>(classes), -INFINITY);
  for (size_t i : {300u, 301u, 700u, 1011u}) values[i] = 2.0;
  const auto logits = make_tensor(kF32, {1, classes}, values), labels = label_tensor({700});
  OwnedTensor loss(kF32, {1}), lse(kF32, {1}), dlogits(kF32, {1, classes});
  cross_entropy_forward(device_context(), logits, labels, 0, loss, lse);
  EXPECT_TRUE(all_close(loss, {std::log(4.0)}, {4 * kUnit, 0}));
  cross_entropy_backward(device_context(), logits, labels, lse, make_tensor(kF32, {1}, {1}), 0, dlogits);
  std::vector<double> want(values.size());
  for (size_t i : {300u, 301u, 1011u}) want[i] = 0.25;
  want[700] = -0.75;
  EXPECT_TRUE(all_close(dlogits, want, {16 * kUnit, 0}));
}

TEST_P(CrossEntropyTest, WeightedSumHasTheBitsOfASumInRowOrder) {
  for (int64_t rows : {1, 31, 1024, 1025, 5003}) {
    const auto losses = random_tensor(kF32, {rows}, 5), weights = random_tensor(kF32, {rows}, 6);
    OwnedTensor loss(DType::kF64, {1});
    weighted_sum(device_context(), losses, weights, loss);
    double want = 0;
    const auto a = values_of(weights), b = values_of(losses);
    for (size_t i = 0; i < a.size(); ++i) want += a[i] * b[i];
    EXPECT_EQ(values_of(loss)[0], want);
  }
}

TEST(CrossEntropy, BothBuildsAgree) {
  if (!cpu_features().avx512) GTEST_SKIP() << "this processor has no AVX-512: one build only";
  for (DType dtype : {kF32, kBF16})
    for (int64_t n : {1, 15, 16, 64, 100, 5000}) {
      const auto logits = random_tensor(dtype, {n}, 1, 3.0);
      const auto a = cpu::kCrossEntropyLoopsBaseline.statistics(dtype, logits.view().raw(), n, true);
      const auto b = cpu::kCrossEntropyLoopsAvx512.statistics(dtype, logits.view().raw(), n, true);
      const auto without = cpu::kCrossEntropyLoopsAvx512.statistics(dtype, logits.view().raw(), n, false);
      EXPECT_EQ(without.max, b.max);
      EXPECT_EQ(without.exp_sum, b.exp_sum);
      const double relative = kUnit * (4 * std::sqrt(static_cast<double>(n)) + 16);
      EXPECT_EQ(a.max, b.max);
      EXPECT_NEAR(a.exp_sum, b.exp_sum, relative * static_cast<double>(a.exp_sum));
      EXPECT_NEAR(a.centered_sum, b.centered_sum, relative * static_cast<double>(std::abs(a.centered_sum)));
      for (DType out : {kF32, kBF16}) {
        OwnedTensor first(out, {n}), second(out, {n});
        cpu::kCrossEntropyLoopsBaseline.gradient(dtype, logits.view().raw(), 4.0f, 0.5f, 0.01f, out, first.view().raw(),
                                                 n);
        cpu::kCrossEntropyLoopsAvx512.gradient(dtype, logits.view().raw(), 4.0f, 0.5f, 0.01f, out, second.view().raw(),
                                               n);
        // exp within 2 units of each other's place; values up to e^8.
        EXPECT_TRUE(all_close(second, values_of(first), {3000 * 8 * kUnit, out == kBF16 ? 0x1p-7 : 8 * kUnit}));
      }
    }
}

TEST_P(CrossEntropyTest, NanReachesLossAndGradient) {
  for (int64_t place : {0, 20, 70}) {
    const Problem p = random_problem(kF32, 2, 77, 0);
    p.logits.view().data<float>()[place] = NAN;
    const Result r = run(p, kF32);
    EXPECT_TRUE(std::isnan(values_of(r.loss)[0]));
    EXPECT_FALSE(std::isnan(values_of(r.loss)[1]));
    for (size_t v = 0; v < 77; ++v) EXPECT_TRUE(std::isnan(values_of(r.dlogits)[v]));
    OwnedTensor loss(DType::kF64, {1});
    weighted_sum(device_context(), r.loss, p.weights, loss);
    EXPECT_TRUE(std::isnan(values_of(loss)[0]));
  }
  // An ignored row is not read.
  const auto logits = make_tensor(kF32, {1, 2}, {NAN, 1});
  OwnedTensor loss(kF32, {1}), lse(kF32, {1}), dlogits(kF32, {1, 2});
  cross_entropy_forward(device_context(), logits, label_tensor({-100}), 0, loss, lse);
  cross_entropy_backward(device_context(), logits, label_tensor({-100}), lse, loss, 0, dlogits);
  EXPECT_TRUE(all_close(loss, {0}, {}));
  EXPECT_TRUE(all_close(dlogits, {0, 0}, {}));
}

TEST_P(CrossEntropyTest, EmptySizes) {
  OwnedTensor none(kF32, {0}), loss = make_tensor(DType::kF64, {1}, {7});
  cross_entropy_forward(device_context(), OwnedTensor(kF32, {0, 5}), label_tensor({}), 0.1f, none, none);
  cross_entropy_backward(device_context(), OwnedTensor(kF32, {0, 5}), label_tensor({}), none, none, 0.1f,
                         OwnedTensor(kF32, {0, 5}));
  weighted_sum(device_context(), none, none, loss);
  EXPECT_TRUE(all_close(loss, {0}, {}));
  OwnedTensor one = filled_tensor(kF32, {1}, 0xff);
  cross_entropy_forward(device_context(), OwnedTensor(kF32, {1, 0}), label_tensor({-100}), 0.1f, one, Tensor());
  EXPECT_TRUE(all_close(one, {0}, {}));
}

TEST_P(CrossEntropyTest, Errors) {
  const Context c = device_context();
  const OwnedTensor logits(kF32, {3, 4}), row(kF32, {3});
  const auto labels = label_tensor({0, 3, -100});
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  const auto forward = [&](Tensor x, Tensor l, float s, Tensor loss, Tensor lse) {
    return [=] { cross_entropy_forward(c, x, l, s, loss, lse); };
  };
  EXPECT_TRUE(throws_error(forward(logits, label_tensor({0, 4, -1}), 0, row, row), argument,
                           {"cross_entropy: labels must lie in 0..3 (V=4) or be -100; got 4 at row 1"}));
  EXPECT_TRUE(throws_error(forward(logits, label_tensor({0, 0, -1}), 0, row, row), argument, {"got -1 at row 2"}));
  EXPECT_TRUE(throws_error(forward(logits, labels, 1.0f, row, row), argument, {"smoothing must lie in [0, 1); got 1"}));
  EXPECT_TRUE(throws_error(forward(logits, labels, NAN, row, row), argument, {"got nan"}));
  EXPECT_TRUE(throws_error(forward(OwnedTensor(DType::kF64, {3, 4}), labels, 0, row, row), shape,
                           {"logits must be (R, V) f32", "; got (3, 4) f64"}));
  if (!on_cuda()) {
    EXPECT_TRUE(throws_error(forward(OwnedTensor(kF16, {3, 4}), labels, 0, row, row), shape,
                             {"logits must be (R, V) f32 or bf16; got (3, 4) f16"}));
  }
  EXPECT_TRUE(throws_error(forward(logits, OwnedTensor(DType::kI64, {3}), 0, row, row), shape,
                           {"labels must be (3) i32; got (3) i64"}));
  EXPECT_TRUE(throws_error(forward(logits, labels, 0, Tensor(), row), shape, {"row_loss must be (3) f32; got none"}));
  EXPECT_TRUE(throws_error(forward(logits, labels, 0, row, OwnedTensor(kF32, {2})), shape,
                           {"lse must be (3) f32; got (2) f32"}));
  const auto backward = [&](Tensor x, Tensor l, Tensor lse, Tensor w, Tensor d) {
    return [=] { cross_entropy_backward(c, x, l, lse, w, 0, d); };
  };
  EXPECT_TRUE(throws_error(backward(logits, label_tensor({0, 9, 0}), row, row, logits), argument,
                           {"cross_entropy: labels", "got 9 at row 1"}));
  EXPECT_TRUE(throws_error(backward(logits, labels, Tensor(), row, logits), shape, {"lse must be (3) f32; got none"}));
  EXPECT_TRUE(throws_error(backward(logits, labels, row, OwnedTensor(kBF16, {3}), logits), shape,
                           {"row_weight must be (3) f32; got (3) bf16"}));
  EXPECT_TRUE(
      throws_error(backward(logits, labels, row, row, OwnedTensor(kF32, {3, 5})), shape, {"dlogits must be (3, 4)"}));
  const Tensor other(logits.view().raw(), kBF16, {3, 4}, logits.view().device());
  EXPECT_TRUE(throws_error(backward(logits, labels, row, row, other), shape,
                           {"dlogits in place of logits must be f32; got bf16"}));
  EXPECT_TRUE(throws_error([&] { weighted_sum(c, row, row, row); }, shape,
                           {"weighted_sum: loss must be (1) f64; got (3) f32"}));
  EXPECT_TRUE(throws_error([&] { weighted_sum(c, row, OwnedTensor(kF32, {4}), OwnedTensor(DType::kF64, {1})); }, shape,
                           {"weighted_sum: row_weight must be (3) f32; got (4) f32"}));
}

}  // namespace
}  // namespace permafrost
