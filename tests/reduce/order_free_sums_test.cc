#include "parallel/reduce/order_free_sums.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>

#include "core/device/buffer.h"
#include "core/device/bytes.h"
#include "parallel/group/host_staged_group.h"
#include "parallel/group/inproc_group.h"
#include "parallel/reduce/exponents.h"
#include "parallel/reduce/global_norm.h"
#include "tests/reference/order_free_ref.h"
#include "tests/support/compare.h"
#include "tests/support/kernel_test.h"

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

/// On the device in use.
struct Sums {
  explicit Sums(const TrainableLayout& layout, int ranks, int64_t micro_batches, SumMode mode = SumMode::kOrderFree,
                int rank = 0)
      : shards(layout.elements, ranks),
        memory("sums", layout.elements * 8, testing::used_device()),
        sums(layout, shards, rank, micro_batches, mode,
             Tensor(memory.data(), mode == SumMode::kPlain ? DType::kF32 : DType::kI64, Shape{layout.elements},
                    memory.device())),
        rank(rank) {
    if (memory.device().kind == DeviceKind::kCuda) {
      stream.emplace(memory.device());
      context = {.device = memory.device(), .pool = nullptr, .stream = *stream};
    }
  }
  void add(const TrainableLayout& layout, int param, int64_t micro_batch) {
    std::vector<float> values = gradient_of(layout, param, micro_batch);
    add(param, values);
  }
  void add(int param, const std::vector<float>& values) {
    const Buffer copy = Buffer::pinned("gradient", std::ssize(values) * 4, memory.device());
    std::ranges::copy(values, reinterpret_cast<float*>(copy.data()));
    sums.accumulate(context, param, {copy.data(), DType::kF32, Shape{std::ssize(values)}, copy.device()});
    finish(context);  // before the copy is gone
  }
  void end(int64_t micro_batch) {
    sums.end_micro_batch(context, micro_batch);
    sums.settle(context);
  }
  void begin_step(std::span<const int32_t> limits) { sums.begin_step(context, limits); }
  void begin_measuring(bool keep) { sums.begin_measuring(context, keep); }
  /// This rank's slice of the sums over ranks.
  std::vector<float> reduce(Group& group) {
    const Slice slice(*this);
    sums.reduce(context, *over_host(group), slice.tensor);
    finish(context);
    return slice.values();
  }
  double norm(Group& group, const std::vector<float>& slice, double clip_norm = 0, float* clip = nullptr) {
    Slice values(*this);
    std::ranges::copy(slice, reinterpret_cast<float*>(values.memory.data()));
    const Device device = memory.device();
    const Buffer blocks = Buffer::pinned("blocks", 8 * shards.blocks(), device),
                 all = Buffer::pinned("norm", 16, device);
    const auto result = [&](int64_t byte, DType dtype) { return Tensor(all.data() + byte, dtype, Shape{1}, device); };
    global_norm(context, *over_host(group), shards, values.tensor,
                {blocks.data(), DType::kF64, Shape{shards.blocks()}, device}, clip_norm,
                {result(0, DType::kF64), result(8, DType::kF32), result(12, DType::kI32)});
    finish(context);
    if (clip) *clip = *reinterpret_cast<const float*>(all.data() + 8);
    return *reinterpret_cast<const double*>(all.data());
  }
  /// For tensors of the device in use.
  std::unique_ptr<Group> over_host(Group& group) {
    if (!stream) return group.split(0, group.rank(), "the same ranks");
    staging = Buffer::pinned("staging", memory.bytes(), memory.device());
    return make_host_staged_group(group, memory.device(), {staging.data(), DType::kU8, Shape{staging.bytes()}});
  }
  struct Slice {
    explicit Slice(const Sums& sums)
        : elements(sums.shards.count(sums.rank)),
          memory(Buffer::pinned("slice", 4 * elements, sums.memory.device())),
          tensor(memory.data(), DType::kF32, Shape{elements}, memory.device()) {
      std::ranges::fill(std::span(reinterpret_cast<float*>(memory.data()), static_cast<size_t>(elements)),
                        std::nanf(""));
    }
    std::vector<float> values() const {
      const auto* from = reinterpret_cast<const float*>(memory.data());
      return {from, from + elements};
    }
    int64_t elements;
    Buffer memory;
    Tensor tensor;
  };
  std::optional<Stream> stream;
  Context context = cpu_context();
  Buffer staging;
  ShardSpec shards;
  Buffer memory;
  OrderFreeSums sums;
  int rank;
};

/// The whole step on `ranks` threads: micro-batch m by rank owner(m), in the order given. Returns the reduced space.
template <typename Owner>
std::vector<float> reduced(const TrainableLayout& layout, int ranks, const std::vector<int64_t>& order, Owner owner,
                           SumMode mode = SumMode::kOrderFree, bool reverse_params = false, double* norm = nullptr) {
  const auto g = std::ssize(order);
  const std::vector<int32_t> limits = limits_of(layout, g);
  std::vector<float> result(static_cast<size_t>(layout.elements), std::nanf(""));
  run_inproc(ranks, [&](Group& group) {
    Sums sums(layout, ranks, g, mode, group.rank());
    sums.begin_step(limits);
    for (const int64_t m : order) {
      if (owner(m) != group.rank()) continue;
      for (int i = 0; i < std::ssize(layout.params); ++i) {
        const int p = reverse_params ? static_cast<int>(std::ssize(layout.params)) - 1 - i : i;
        if (layout.params[static_cast<size_t>(p)].name != "zero" || m % 2 == 0) sums.add(layout, p, m);
      }
      sums.end(m);
    }
    EXPECT_FALSE(sums.sums.overflow());
    EXPECT_FALSE(sums.sums.bad().found());
    const std::vector<float> slice = sums.reduce(group);
    std::ranges::copy(slice, result.begin() + sums.shards.begin(group.rank()));
    const double n = sums.norm(group, slice);
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

class OrderFreeSumsTest : public testing::KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, OrderFreeSumsTest, ::testing::Values(testing::kCpu, testing::Target::kCuda),
                         testing::target_name);

TEST_P(OrderFreeSumsTest, AnyOrderAndAnyRanksGiveTheBitsOfTheReference) {
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

TEST_P(OrderFreeSumsTest, PlainSumsDependOnTheOrder) {
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

TEST_P(OrderFreeSumsTest, Step0MeasuresThenTheStepFits) {
  const TrainableLayout layout = small_layout();
  Sums sums(layout, 1, 3);
  Exponents exponents(std::ssize(layout.params));
  EXPECT_FALSE(exponents.known());
  sums.begin_measuring(false);
  for (int64_t m = 0; m < 3; ++m) {
    for (int p = 0; p < std::ssize(layout.params); ++p) sums.add(layout, p, m);
    sums.end(m);
  }
  EXPECT_FALSE(sums.sums.overflow());
  for (int p = 0; p < std::ssize(layout.params); ++p)
    EXPECT_EQ(sums.sums.exponents()[static_cast<size_t>(p)], largest_exponent(layout, p, 3));
  EXPECT_EQ(sums.sums.exponents()[3], kZeroExponent);
  exponents.learn(sums.sums.exponents());
  const auto limits = exponents.limits();
  EXPECT_EQ(limits[0], largest_exponent(layout, 0, 3) + Exponents::kHeadroom);
  EXPECT_EQ(limits[3], *std::max_element(limits.begin(), limits.end())) << "all zero: as large as the largest";
  EXPECT_TRUE(throws_error([&] { sums.reduce(*make_solo_group()); }, ErrorKind::kInvalidArgument,
                           {"reduce must follow begin_step"}));
}

TEST(OrderFreeSums, KeptGradientsOfStep0HaveTheBitsOfARepetition) {
  const TrainableLayout layout{{{"small", 3, 5}, {"none", 8, 7}, {"large", 4096, 70'001}}, 80'000};
  for (const SumMode mode : {SumMode::kOrderFree, SumMode::kPlain}) {
    std::vector<float> want(static_cast<size_t>(layout.elements)), got = want;
    Exponents exponents(std::ssize(layout.params));
    Sums kept(layout, 1, 4, mode), repeated(layout, 1, 4, mode);
    kept.begin_measuring(true);
    for (const int p : {0, 2}) kept.add(layout, p, 1);
    kept.end(1);
    exponents.learn(kept.sums.exponents());
    kept.sums.sum_kept(cpu_context(), exponents.limits());
    got = kept.reduce(*make_solo_group());
    repeated.begin_step(exponents.limits());
    for (const int p : {0, 2}) repeated.add(layout, p, 1);
    repeated.end(1);
    EXPECT_TRUE(std::ranges::equal(kept.sums.exponents(), repeated.sums.exponents()));
    want = repeated.reduce(*make_solo_group());
    EXPECT_TRUE(same(want, got));
    EXPECT_NE(want[4096 + 70'000], 0) << "something was summed";
    kept.begin_step(exponents.limits());  // nothing of it is left
    got = kept.reduce(*make_solo_group());
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
  sums.begin_measuring(true);
  sums.add(0, gradient);
  is_refused([&] { sums.add(0, gradient); }, {"one gradient of a parameter can be kept", "param=w"});
  sums.end(0);
  is_refused([&] { sums.sums.sum_kept(cpu_context(), std::vector<int32_t>{2}); },
             {"below 2^2", "exponent 3", "param=w"});
}

TEST_P(OrderFreeSumsTest, OverflowRepeatsWithLargerExponentsToTheSameBits) {
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
    sums.begin_step(exponents.limits());
    for (int64_t m = 0; m < g; ++m) {
      for (int p = 0; p < std::ssize(layout.params); ++p) sums.add(layout, p, m);
      sums.end(m);
    }
    const bool overflow = sums.sums.overflow();
    exponents.learn(sums.sums.exponents());
    if (!overflow) break;
    ASSERT_LT(attempts, 3);
  }
  EXPECT_EQ(attempts, 2);
  slice = sums.reduce(*group);
  // The zero parameter's exponent differs from the reference's, which changes nothing.
  EXPECT_TRUE(same(want, slice));
}

TEST_P(OrderFreeSumsTest, GrowthWithinTheHeadroomFits) {
  TrainableLayout layout{{{"w", 0, 4}}, 4};
  for (const auto& [factor, fits] : {std::pair{4095.0f, true}, std::pair{4096.0f, false}}) {
    Sums sums(layout, 1, 1);
    Exponents exponents(1);
    exponents.learn(std::vector<int32_t>{1});  // gradients in [1, 2)
    sums.begin_step(exponents.limits());
    sums.add(0, {2.0f * factor, 0, 1, -1});
    sums.end(0);
    EXPECT_EQ(sums.sums.overflow(), !fits) << factor;
  }
}

TEST_P(OrderFreeSumsTest, TheFirstNonFiniteGradientIsNamedWhateverTheOrder) {
  const TrainableLayout layout = small_layout();
  for (const bool measuring : {false, true})
    for (const bool reverse : {false, true}) {
      Sums sums(layout, 1, 4);
      if (measuring)
        sums.begin_measuring(false);
      else
        sums.begin_step(limits_of(layout, 4));
      std::vector<std::pair<int64_t, int>> jobs;
      for (int64_t m = 0; m < 4; ++m)
        for (const int p : {0, 1, 4}) jobs.emplace_back(m, p);
      if (reverse) std::ranges::reverse(jobs);
      for (size_t job = 0; job < jobs.size(); ++job) {
        const auto [m, p] = jobs[job];
        std::vector<float> values = gradient_of(layout, p, m);
        if (m == 2 && p == 4) values[70] = std::nanf("");
        if (m == 2 && p == 1) values[2] = -std::numeric_limits<float>::infinity();
        if (m == 3 && p == 0) values[0] = std::nanf("");
        sums.add(p, values);
        if (job % 3 == 2) sums.end(m);
      }
      ASSERT_TRUE(sums.sums.bad().found());
      EXPECT_EQ(sums.sums.bad().param, 1);
      EXPECT_EQ(sums.sums.bad().micro_batch, 2);
      EXPECT_FALSE(sums.sums.overflow()) << "not finite is told apart from too large";
    }
}

TEST_P(OrderFreeSumsTest, TheLargestAllowedGradientsOfAllMicroBatchesDoNotWrap) {
  TrainableLayout layout{{{"w", 0, 2}}, 2};
  for (const int64_t g : {1, 2, 3, 4, 7, 8, 100}) {
    Sums sums(layout, 1, g);
    sums.begin_step(std::vector<int32_t>{5});
    const float largest = std::nextafter(32.0f, 0.0f);
    std::vector<float> gradient = {largest, -largest};
    for (int64_t m = 0; m < g; ++m) {
      sums.add(0, gradient);
      sums.end(m);
    }
    EXPECT_FALSE(sums.sums.overflow());
    const std::vector<float> slice = sums.reduce(*make_solo_group());
    EXPECT_EQ(slice[0], static_cast<float>(static_cast<double>(g) * largest));
    EXPECT_EQ(slice[1], -slice[0]);
  }
}

TEST_P(OrderFreeSumsTest, IsReducedInTwoHalves) {
  const TrainableLayout layout = small_layout();
  const auto alone = make_solo_group();
  for (const SumMode mode : {SumMode::kOrderFree, SumMode::kPlain}) {
    Sums whole(layout, 1, 1, mode), halves(layout, 1, 1, mode);
    for (Sums* sums : {&whole, &halves}) {
      sums->begin_step(limits_of(layout, 1));
      for (int p = 0; p < std::ssize(layout.params); ++p) sums->add(layout, p, 0);
      sums->end(0);
    }
    const Sums::Slice slice(halves);
    EXPECT_TRUE(throws_error([&] { halves.sums.convert(halves.context, slice.tensor); }, ErrorKind::kInvalidArgument,
                             {"convert must follow exchange"}));
    halves.sums.exchange(halves.context, *halves.over_host(*alone), slice.tensor);
    EXPECT_TRUE(throws_error([&] { halves.add(layout, 0, 0); }, ErrorKind::kInvalidArgument,
                             {"begin_step or begin_measuring"}));
    EXPECT_TRUE(throws_error([&] { halves.sums.convert(halves.context, slice.tensor.rows(1, 3)); },
                             ErrorKind::kShapeMismatch, {"slice must be", "(2)"}));
    halves.sums.convert(halves.context, slice.tensor);
    finish(halves.context);
    EXPECT_TRUE(same(slice.values(), whole.reduce(*alone)));
  }
}

TEST_P(OrderFreeSumsTest, TheNormClipsAndKeepsAStepThatIsNotFiniteFromBeingTaken) {
  const TrainableLayout layout{{{"w", 0, 9000}}, 9000};
  const auto group = make_solo_group();
  Sums sums(layout, 1, 1);
  std::vector<float> slice(9000, 0.5f);
  const double norm = std::sqrt(9000 * 0.25);
  float clip = 0;
  EXPECT_EQ(sums.norm(*group, slice, 0, &clip), norm);
  EXPECT_EQ(clip, 1.0f);
  EXPECT_EQ(sums.norm(*group, slice, 100, &clip), norm);
  EXPECT_EQ(clip, 1.0f);
  EXPECT_EQ(sums.norm(*group, slice, 10, &clip), norm);
  EXPECT_EQ(clip, static_cast<float>(10 / (norm + 1e-6)));
}

TEST(OrderFreeSums, ExponentsRiseAtOnceAndFallByABitAStep) {
  Exponents exponents(1);
  const auto learned = [&](int32_t agreed) {
    exponents.learn(std::vector<int32_t>{agreed});
    return exponents.limits()[0] - Exponents::kHeadroom;
  };
  EXPECT_EQ(learned(-8), -8);
  EXPECT_EQ(learned(3), 3);
  EXPECT_EQ(learned(3), 3);
  EXPECT_EQ(learned(1), 2);
  EXPECT_EQ(learned(1), 1);
  EXPECT_EQ(learned(1), 1);
  EXPECT_EQ(learned(-30), -30 + Exponents::kMostAbove);
  EXPECT_EQ(learned(-30), -31 + Exponents::kMostAbove);
  EXPECT_EQ(learned(kZeroExponent), -31 + Exponents::kMostAbove) << "nothing is known of a gradient of zeros";
  EXPECT_EQ(learned(1), 1);
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

TEST_P(OrderFreeSumsTest, ContractsAreChecked) {
  const TrainableLayout layout = small_layout();
  Sums sums(layout, 2, 2);
  std::vector<float> three(3);
  const auto invalid = ErrorKind::kInvalidArgument;
  EXPECT_TRUE(throws_error([&] { sums.add(1, three); }, invalid, {"begin_step or begin_measuring"}));
  EXPECT_TRUE(throws_error([&] { sums.begin_step(std::vector<int32_t>{1}); }, invalid, {"limits", "(5)", "1"}));
  sums.begin_step(std::vector<int32_t>(5, 0));
  EXPECT_TRUE(
      throws_error([&] { sums.add(0, three); }, ErrorKind::kShapeMismatch, {"5000 elements", "(3)", "[param=a]"}));
  EXPECT_TRUE(throws_error([&] { sums.add(5, three); }, invalid, {"0..4", "5"}));
  sums.add(1, three);
  sums.end(0);
  sums.add(1, three);
  sums.end(1);
  EXPECT_TRUE(throws_error([&] { sums.add(1, three); }, invalid, {"at most 2", "[param=b]"}));
  EXPECT_TRUE(throws_error([&] { sums.end(2); }, invalid, {"at most 2", "micro-batches"}));
  EXPECT_TRUE(throws_error([&] { sums.reduce(*make_solo_group()); }, invalid, {"2 ranks", "1"}));
  TrainableLayout overlapping{{{"x", 0, 4}, {"y", 2, 4}}, 8};
  EXPECT_TRUE(throws_error([&] { Sums(overlapping, 1, 1); }, invalid, {"without overlap", "[param=y]"}));
}

}  // namespace
}  // namespace permafrost
