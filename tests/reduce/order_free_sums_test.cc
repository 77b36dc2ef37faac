#include "parallel/reduce/order_free_sums.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/device/buffer.h"
#include "parallel/group/inproc_group.h"
#include "parallel/reduce/exponents.h"
#include "parallel/reduce/global_norm.h"
#include "tests/reference/order_free_ref.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::cpu_context;
using testing::throws_error;

/// Uneven parameters with a gap, some smaller than the number of ranks; a little over three blocks.
TrainableLayout small_layout() {
  TrainableLayout layout;
  layout.params = {{"a", 0, 5000}, {"b", 5024, 3}, {"c", 5027, 1}, {"zero", 5056, 100}, {"d", 5184, 7777}};
  layout.elements = 12968;
  return layout;
}

/// Gradient of one micro-batch: sizes differ by parameter and micro-batch over many binades.
std::vector<float> gradient_of(const TrainableLayout& layout, int param, int64_t micro_batch) {
  const TrainableParam& p = layout.params[static_cast<size_t>(param)];
  std::vector<float> values(static_cast<size_t>(p.elements));
  if (p.name == "zero") return values;
  Random random(77, RandomPurpose::kSynthetic, static_cast<uint32_t>(micro_batch), static_cast<uint64_t>(param));
  for (float& v : values)
    v = static_cast<float>(random.next_normal() *
                           std::ldexp(1.0, param * 9 - 20 - static_cast<int>(random.next_below(30))));
  return values;
}

int32_t largest_exponent(const TrainableLayout& layout, int param, int64_t micro_batches) {
  int32_t e = kZeroExponent;
  for (int64_t m = 0; m < micro_batches; ++m)
    for (const float v : gradient_of(layout, param, m))
      if (v != 0) e = std::max(e, static_cast<int32_t>(std::ilogb(v)) + 1);
  return e;
}

std::vector<int32_t> limits_of(const TrainableLayout& layout, int64_t micro_batches) {
  Exponents exponents(std::ssize(layout.params));
  std::vector<int32_t> seen;
  for (int p = 0; p < std::ssize(layout.params); ++p) seen.push_back(largest_exponent(layout, p, micro_batches));
  exponents.learn(seen);
  return exponents.limits();
}

struct Sums {
  explicit Sums(const TrainableLayout& layout, int ranks, int64_t micro_batches, SumMode mode = SumMode::kOrderFree)
      : shards(layout.elements, ranks),
        memory("sums", layout.elements * 8),
        sums(layout, shards, micro_batches, mode,
             Tensor(memory.data(), mode == SumMode::kPlain ? DType::kF32 : DType::kI64, Shape{layout.elements})) {}
  void add(const TrainableLayout& layout, int param, int64_t micro_batch) {
    std::vector<float> values = gradient_of(layout, param, micro_batch);
    sums.accumulate(cpu_context(), param, flat(std::span(values)), micro_batch);
  }
  ShardSpec shards;
  Buffer memory;
  OrderFreeSums sums;
};

/// The whole step on `ranks` threads: micro-batch m by rank owner(m), in the order given. Returns the reduced space.
template <typename Owner>
std::vector<float> reduced(const TrainableLayout& layout, int ranks, const std::vector<int64_t>& order, Owner owner,
                           SumMode mode = SumMode::kOrderFree, bool reverse_params = false, double* norm = nullptr) {
  const auto g = std::ssize(order);
  const std::vector<int32_t> limits = limits_of(layout, g);
  std::vector<float> result(static_cast<size_t>(layout.elements), std::nanf(""));
  run_inproc(ranks, [&](Group& group) {
    Sums sums(layout, ranks, g, mode);
    sums.sums.begin_step(limits);
    for (const int64_t m : order)
      if (owner(m) == group.rank())
        for (int i = 0; i < std::ssize(layout.params); ++i) {
          const int p = reverse_params ? static_cast<int>(std::ssize(layout.params)) - 1 - i : i;
          if (layout.params[static_cast<size_t>(p)].name != "zero" || m % 2 == 0) sums.add(layout, p, m);
        }
    EXPECT_FALSE(sums.sums.overflow());
    EXPECT_FALSE(sums.sums.bad().found());
    const auto slice = std::span(result).subspan(static_cast<size_t>(sums.shards.begin(group.rank())),
                                                 static_cast<size_t>(sums.shards.count(group.rank())));
    sums.sums.reduce(cpu_context(), group, flat(slice));
    std::vector<double> blocks(static_cast<size_t>(sums.shards.blocks()));
    const double n = global_norm(cpu_context(), group, sums.shards, flat(slice), flat(std::span(blocks)));
    if (norm && group.rank() == ranks - 1) *norm = n;
  });
  return result;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

std::vector<int64_t> first(int64_t n) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < n; ++i) order.push_back(i);
  return order;
}

std::vector<float> reference_sums(const TrainableLayout& layout, int64_t g) {
  const std::vector<int32_t> limits = limits_of(layout, g);
  std::vector<float> result(static_cast<size_t>(layout.elements));
  for (int p = 0; p < std::ssize(layout.params); ++p) {
    const OrderFreeScale scale = OrderFreeScale::make(limits[static_cast<size_t>(p)], g);
    std::vector<std::vector<float>> gradients;
    for (int64_t m = 0; m < g; ++m) gradients.push_back(gradient_of(layout, p, m));
    for (size_t i = 0; i < gradients[0].size(); ++i) {
      std::vector<float> summands;
      for (const auto& gradient : gradients) summands.push_back(gradient[i]);
      result[static_cast<size_t>(layout.params[static_cast<size_t>(p)].offset) + i] =
          reference::order_free_sum(summands, scale.exponent, scale.shift);
    }
  }
  return result;
}

TEST(OrderFreeSums, AnyOrderAndAnyRanksGiveTheBitsOfTheReference) {
  const TrainableLayout layout = small_layout();
  const int64_t g = 7;  // not divisible by 2, 3, 4
  const std::vector<float> want = reference_sums(layout, g);
  double norm = -1;
  for (int ranks = 1; ranks <= 4; ++ranks) {
    std::vector<int64_t> order = first(g);
    double this_norm = 0;
    EXPECT_TRUE(same(
        want, reduced(
                  layout, ranks, order, [&](int64_t m) { return m % ranks; }, SumMode::kOrderFree, false, &this_norm)));
    if (norm < 0) norm = this_norm;
    EXPECT_EQ(norm, this_norm) << ranks << " ranks";
    std::ranges::reverse(order);
    EXPECT_TRUE(same(
        want, reduced(
                  layout, ranks, order, [&](int64_t m) { return (m * 3 + 1) % ranks; }, SumMode::kOrderFree, true)));
    EXPECT_TRUE(same(want, reduced(layout, ranks, order, [&](int64_t) { return ranks - 1; })));  // others add nothing
  }
  double squares = 0;
  for (const float v : want) squares += static_cast<double>(v) * v;
  EXPECT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);
}

TEST(OrderFreeSums, PlainSumsDependOnTheOrder) {
  const TrainableLayout layout = small_layout();
  const auto one = reduced(
      layout, 1, first(7), [](int64_t) { return 0; }, SumMode::kPlain);
  const auto again = reduced(
      layout, 1, first(7), [](int64_t) { return 0; }, SumMode::kPlain);
  const auto three = reduced(
      layout, 3, first(7), [](int64_t m) { return m % 3; }, SumMode::kPlain);
  EXPECT_TRUE(same(one, again));
  EXPECT_FALSE(same(one, three)) << "the control run must differ";
  const auto exact = reduced(layout, 3, first(7), [](int64_t m) { return m % 3; });
  int64_t far = 0;
  for (size_t i = 0; i < exact.size(); ++i)
    far += !(std::fabs(exact[i] - three[i]) <= 1e-4f + 1e-3f * std::fabs(exact[i]));
  EXPECT_EQ(far, 0) << "but only in the last places";
}

TEST(OrderFreeSums, ErrorStaysWithinTheBoundOfTheDocumentation) {
  const TrainableLayout layout = small_layout();
  const int64_t g = 5;
  const std::vector<int32_t> limits = limits_of(layout, g);
  const std::vector<float> got = reduced(layout, 2, first(g), [](int64_t m) { return m % 2; });
  double worst = 0;
  for (int p = 0; p < std::ssize(layout.params); ++p) {
    const OrderFreeScale scale = OrderFreeScale::make(limits[static_cast<size_t>(p)], g);
    for (int64_t i = 0; i < layout.params[static_cast<size_t>(p)].elements; i += 7) {
      std::vector<float> summands;
      for (int64_t m = 0; m < g; ++m) summands.push_back(gradient_of(layout, p, m)[static_cast<size_t>(i)]);
      // |sum - exact| <= G / 2 units before the f32 rounding, which adds half an ulp (2^-24) and f64's 2^-53.
      const int unit = std::min(-scale.shift, scale.exponent - 90);
      const double exact = std::ldexp(static_cast<double>(reference::exact_sum(summands, unit)), unit);
      const double value = got[static_cast<size_t>(layout.params[static_cast<size_t>(p)].offset + i)];
      const double bound =
          0.5 * static_cast<double>(g) * std::ldexp(1.0, -scale.shift) + std::ldexp(std::fabs(exact), -23);
      EXPECT_LE(std::fabs(value - exact), bound);
      double integer = 0;
      for (const float x : summands)
        integer += std::ldexp(static_cast<double>(reference::order_free_integer(x, scale.exponent, scale.shift)),
                              -scale.shift);
      worst = std::max(worst, std::fabs(integer - exact) / std::ldexp(1.0, scale.exponent - Exponents::kHeadroom - 1));
    }
    if (p == 0) break;  // one parameter holds every size; exact sums are slow
  }
  EXPECT_LT(worst, 1e-14);
}

TEST(OrderFreeSums, Step0MeasuresThenTheStepFits) {
  const TrainableLayout layout = small_layout();
  Sums sums(layout, 1, 3);
  Exponents exponents(std::ssize(layout.params));
  EXPECT_FALSE(exponents.known());
  sums.sums.begin_measuring(false);
  for (int64_t m = 0; m < 3; ++m)
    for (int p = 0; p < std::ssize(layout.params); ++p) sums.add(layout, p, m);
  EXPECT_FALSE(sums.sums.overflow());
  for (int p = 0; p < std::ssize(layout.params); ++p)
    EXPECT_EQ(sums.sums.exponents()[static_cast<size_t>(p)], largest_exponent(layout, p, 3));
  EXPECT_EQ(sums.sums.exponents()[3], kZeroExponent);
  exponents.learn(sums.sums.exponents());
  const auto limits = exponents.limits();
  EXPECT_EQ(limits[0], largest_exponent(layout, 0, 3) + Exponents::kHeadroom);
  EXPECT_EQ(limits[3], *std::max_element(limits.begin(), limits.end())) << "all zero: as large as the largest";
  EXPECT_TRUE(throws_error(
      [&] {
        std::vector<float> slice(static_cast<size_t>(layout.elements));
        sums.sums.reduce(cpu_context(), *make_solo_group(), flat(std::span(slice)));
      },
      ErrorKind::kInvalidArgument, {"reduce must follow begin_step"}));
}

TEST(OrderFreeSums, KeptGradientsOfStep0HaveTheBitsOfARepetition) {
  const TrainableLayout layout{{{"small", 3, 5}, {"none", 8, 7}, {"large", 4096, 70'001}}, 80'000};
  for (const SumMode mode : {SumMode::kOrderFree, SumMode::kPlain}) {
    std::vector<float> want(static_cast<size_t>(layout.elements)), got = want;
    Exponents exponents(std::ssize(layout.params));
    Sums kept(layout, 1, 4, mode), repeated(layout, 1, 4, mode);
    kept.sums.begin_measuring(true);
    for (const int p : {0, 2}) kept.add(layout, p, 1);
    exponents.learn(kept.sums.exponents());
    kept.sums.sum_kept(cpu_context(), exponents.limits());
    kept.sums.reduce(cpu_context(), *make_solo_group(), flat(std::span(got)));
    repeated.sums.begin_step(exponents.limits());
    for (const int p : {0, 2}) repeated.add(layout, p, 1);
    EXPECT_TRUE(std::ranges::equal(kept.sums.exponents(), repeated.sums.exponents()));
    repeated.sums.reduce(cpu_context(), *make_solo_group(), flat(std::span(want)));
    EXPECT_TRUE(same(want, got));
    EXPECT_NE(want[4096 + 70'000], 0) << "something was summed";
    kept.sums.begin_step(exponents.limits());  // nothing of it is left
    kept.sums.reduce(cpu_context(), *make_solo_group(), flat(std::span(got)));
    EXPECT_TRUE(std::ranges::all_of(got, [](float x) { return x == 0; }));
  }
}

TEST(OrderFreeSums, KeepsOneGradientOfAParameterAndOnlyWhatFits) {
  const TrainableLayout layout{{{"w", 0, 4}}, 4};
  std::vector<float> gradient = {1, 2, 3, 4};
  const auto is_refused = [](auto&& run, const std::vector<std::string>& words) {
    EXPECT_TRUE(throws_error(run, ErrorKind::kInvalidArgument, words));
  };
  Sums sums(layout, 1, 4);
  is_refused([&] { sums.sums.sum_kept(cpu_context(), std::vector<int32_t>{3}); },
             {"must follow begin_measuring(true)"});
  sums.sums.begin_measuring(true);
  sums.sums.accumulate(cpu_context(), 0, flat(std::span(gradient)), 0);
  is_refused([&] { sums.sums.accumulate(cpu_context(), 0, flat(std::span(gradient)), 1); },
             {"one gradient of a parameter can be kept", "param=w"});
  is_refused([&] { sums.sums.sum_kept(cpu_context(), std::vector<int32_t>{2}); },
             {"below 2^2", "exponent 3", "param=w"});
}

TEST(OrderFreeSums, OverflowRepeatsWithLargerExponentsToTheSameBits) {
  const TrainableLayout layout = small_layout();
  const int64_t g = 3;
  const std::vector<float> want = reference_sums(layout, g);
  const auto group = make_solo_group();
  Sums sums(layout, 1, g);
  Exponents exponents(std::ssize(layout.params));
  exponents.learn(std::vector<int32_t>(layout.params.size(), -60));  // a step of tiny gradients came before
  std::vector<float> slice(want.size());
  int attempts = 0;
  while (true) {
    ++attempts;
    sums.sums.begin_step(exponents.limits());
    for (int64_t m = 0; m < g; ++m)
      for (int p = 0; p < std::ssize(layout.params); ++p) sums.add(layout, p, m);
    const bool overflow = sums.sums.overflow();
    exponents.learn(sums.sums.exponents());
    if (!overflow) break;
    ASSERT_LT(attempts, 3);
  }
  EXPECT_EQ(attempts, 2);
  sums.sums.reduce(cpu_context(), *group, flat(std::span(slice)));
  // The zero parameter's exponent differs from the reference's, which changes nothing.
  EXPECT_TRUE(same(want, slice));
}

TEST(OrderFreeSums, GrowthWithinTheHeadroomFits) {
  TrainableLayout layout{{{"w", 0, 4}}, 4};
  for (const auto& [factor, fits] : {std::pair{4095.0f, true}, std::pair{4096.0f, false}}) {
    Sums sums(layout, 1, 1);
    Exponents exponents(1);
    exponents.learn(std::vector<int32_t>{1});  // gradients in [1, 2)
    sums.sums.begin_step(exponents.limits());
    std::vector<float> gradient = {2.0f * factor, 0, 1, -1};
    sums.sums.accumulate(cpu_context(), 0, flat(std::span(gradient)), 0);
    EXPECT_EQ(sums.sums.overflow(), !fits) << factor;
  }
}

TEST(OrderFreeSums, TheFirstNonFiniteGradientIsNamedWhateverTheOrder) {
  const TrainableLayout layout = small_layout();
  for (const bool measuring : {false, true})
    for (const bool reverse : {false, true}) {
      Sums sums(layout, 1, 4);
      if (measuring)
        sums.sums.begin_measuring(false);
      else
        sums.sums.begin_step(limits_of(layout, 4));
      std::vector<std::pair<int64_t, int>> jobs;
      for (int64_t m = 0; m < 4; ++m)
        for (const int p : {0, 1, 4}) jobs.emplace_back(m, p);
      if (reverse) std::ranges::reverse(jobs);
      for (const auto& [m, p] : jobs) {
        std::vector<float> values = gradient_of(layout, p, m);
        if (m == 2 && p == 4) values[70] = std::nanf("");
        if (m == 2 && p == 1) values[2] = -std::numeric_limits<float>::infinity();
        if (m == 3 && p == 0) values[0] = std::nanf("");
        sums.sums.accumulate(cpu_context(), p, flat(std::span(values)), m);
      }
      ASSERT_TRUE(sums.sums.bad().found());
      EXPECT_EQ(sums.sums.bad().param, 1);
      EXPECT_EQ(sums.sums.bad().micro_batch, 2);
      EXPECT_EQ(sums.sums.bad().element, 2);
      EXPECT_FALSE(sums.sums.overflow()) << "not finite is told apart from too large";
    }
}

TEST(OrderFreeSums, TheLargestAllowedGradientsOfAllMicroBatchesDoNotWrap) {
  TrainableLayout layout{{{"w", 0, 2}}, 2};
  for (const int64_t g : {1, 2, 3, 4, 7, 8, 100}) {
    Sums sums(layout, 1, g);
    sums.sums.begin_step(std::vector<int32_t>{5});
    const float largest = std::nextafter(32.0f, 0.0f);
    std::vector<float> gradient = {largest, -largest};
    for (int64_t m = 0; m < g; ++m) sums.sums.accumulate(cpu_context(), 0, flat(std::span(gradient)), m);
    EXPECT_FALSE(sums.sums.overflow());
    std::vector<float> slice(2);
    sums.sums.reduce(cpu_context(), *make_solo_group(), flat(std::span(slice)));
    EXPECT_EQ(slice[0], static_cast<float>(static_cast<double>(g) * largest));
    EXPECT_EQ(slice[1], -slice[0]);
  }
}

TEST(OrderFreeSums, ExponentsSurviveTheCheckpoint) {
  Exponents exponents(3);
  exponents.learn(std::vector<int32_t>{4, kZeroExponent, -9});
  exponents.learn(std::vector<int32_t>{kZeroExponent, kZeroExponent, -10});
  EXPECT_EQ(exponents.limits(), (std::vector<int32_t>{16, 16, 2}));
  Exponents restored(3);
  restored.restore(exponents.agreed());
  EXPECT_TRUE(restored.known());
  EXPECT_EQ(restored.limits(), exponents.limits());
  Exponents zero(2);
  zero.learn(std::vector<int32_t>{kZeroExponent, kZeroExponent});
  EXPECT_EQ(zero.limits(), (std::vector<int32_t>{12, 12}));
  EXPECT_TRUE(throws_error([&] { restored.restore(std::vector<int32_t>{1}); }, ErrorKind::kInvalidArgument,
                           {"one per parameter (3)", "1"}));
}

TEST(OrderFreeSums, ContractsAreChecked) {
  const TrainableLayout layout = small_layout();
  Sums sums(layout, 2, 2);
  std::vector<float> three(3);
  const auto invalid = ErrorKind::kInvalidArgument;
  EXPECT_TRUE(throws_error([&] { sums.sums.accumulate(cpu_context(), 1, flat(std::span(three)), 0); }, invalid,
                           {"begin_step or begin_measuring"}));
  EXPECT_TRUE(throws_error([&] { sums.sums.begin_step(std::vector<int32_t>{1}); }, invalid, {"limits", "(5)", "1"}));
  sums.sums.begin_step(std::vector<int32_t>(5, 0));
  EXPECT_TRUE(throws_error([&] { sums.sums.accumulate(cpu_context(), 0, flat(std::span(three)), 0); },
                           ErrorKind::kShapeMismatch, {"5000 elements", "(3)", "[param=a]"}));
  EXPECT_TRUE(
      throws_error([&] { sums.sums.accumulate(cpu_context(), 5, flat(std::span(three)), 0); }, invalid, {"0..4", "5"}));
  sums.sums.accumulate(cpu_context(), 1, flat(std::span(three)), 0);
  sums.sums.accumulate(cpu_context(), 1, flat(std::span(three)), 1);
  EXPECT_TRUE(throws_error([&] { sums.sums.accumulate(cpu_context(), 1, flat(std::span(three)), 2); }, invalid,
                           {"at most 2", "[param=b]"}));
  EXPECT_TRUE(throws_error([&] { sums.sums.reduce(cpu_context(), *make_solo_group(), flat(std::span(three))); },
                           invalid, {"2 ranks", "1"}));
  TrainableLayout overlapping{{{"x", 0, 4}, {"y", 2, 4}}, 8};
  EXPECT_TRUE(throws_error([&] { Sums(overlapping, 1, 1); }, invalid, {"without overlap", "[param=y]"}));
}

}  // namespace
}  // namespace permafrost
