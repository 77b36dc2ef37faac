#include "core/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/kernels/attention_case.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_check.h"

namespace permafrost {
namespace {

using namespace permafrost::attention_testing;

class AttentionTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest,
                         ::testing::Values(Target::kPortable, Target::kAvx512, Target::kAmx, Target::kCuda),
                         target_name);

// On CUDA, bf16 and f16 with heads of up to 256 runs in attention_forward_tiles_cuda.cu and
// attention_backward_tiles_cuda.cu, all else in attention_plain_cuda.cu; shapes below cross the tiles of both.

TEST(Attention, GradientFormulaAgreesWithDuals) {
  const AttentionSizes n{2, 4, 4, 2, 3};
  for (const Mask& kind : kMasks) {
    Case c(DType::kF64, n, kind);
    const auto q = values_of(c.q), k = values_of(c.k), v = values_of(c.v), dout = values_of(c.dout);
    const auto seen = c.seen();
    const auto forward = reference::attention(n, seen, 0.6, q, k, v);
    const auto got = reference::attention_gradients(n, 0.6, forward.p, q, k, v, forward.out, dout);
    std::vector<double> all(q), gradient(got.dq);
    for (const auto* part : {&k, &v}) all.insert(all.end(), part->begin(), part->end());
    for (const auto* part : {&got.dk, &got.dv}) gradient.insert(gradient.end(), part->begin(), part->end());
    EXPECT_TRUE(gradient_agrees(
        gradient,
        [&](const auto& x) {
          using Vector = std::remove_cvref_t<decltype(x)>;
          const auto q_end = x.begin() + std::ptrdiff_t(n.q_elements()), k_end = q_end + std::ptrdiff_t(n.k_elements());
          return reference::attention(n, seen, 0.6, Vector(x.begin(), q_end), Vector(q_end, k_end),
                                      Vector(k_end, x.end()))
              .out;
        },
        all, dout))
        << kind.name;
  }
}

TEST_P(AttentionTest, AgreesWithGoldens) {
  const Golden golden("attention.safetensors");
  int checked = 0;
  for (const std::string& name : golden.cases()) {
    const std::string kind = golden.text(name + ".kind");
    const auto extent = [&](const char* letter) { return size_t(golden.number(name + "." + letter)); };
    Case c(DType::kF32, {extent("B"), extent("T"), extent("S"), extent("H"), extent("Dh")});
    c.q = golden.tensor(name + ".q"), c.k = golden.tensor(name + ".k"), c.v = golden.tensor(name + ".v");
    c.dout = golden.tensor(name + ".dout");
    c.scale = float(golden.number(name + ".scale"));
    if (kind.starts_with("causal_open_first"))
      c.mask.kind = MaskKind::kCausalOpenFirst;
    else if (kind.starts_with("causal"))
      c.mask.kind = MaskKind::kCausal;
    c.mask.open_row_sees_padding = kind.ends_with("published");
    if (golden.has(name + ".lengths"))
      c.lengths = make_tensor(DType::kI32, {int64_t(c.n.batch)}, golden.values(name + ".lengths")),
      c.mask.lengths = c.lengths;
    if (kind == "explicit") {
      c.mask.kind = MaskKind::kExplicit;
      c.allowed = golden.tensor(name + ".mask"), c.mask.allowed = c.allowed;
    }
    c.run_forward(level());
    c.run_backward(level());
    const auto close = [&](const OwnedTensor& got, const char* what, size_t length, double magnitude) {
      EXPECT_TRUE(
          all_close(got, golden.values(name + what), tolerance(DType::kF32, GetParam(), length, c.n.size, magnitude)))
          << name << what;
    };
    const auto want = c.wanted();
    const auto g = reference::attention_gradients(c.n, double{c.scale}, want.p, values_of(c.q), values_of(c.k),
                                                  values_of(c.v), want.out, values_of(c.dout));
    close(c.out, ".out", c.n.keys, largest(values_of(c.v)));
    close(c.dq, ".dq", c.n.keys, g.dq_magnitude);
    close(c.dk, ".dk", c.n.queries, g.dk_magnitude);
    close(c.dv, ".dv", c.n.queries, g.dv_magnitude);
    ++checked;
  }
  EXPECT_EQ(checked, 13);
}

TEST_P(AttentionTest, EveryMaskAtManySizes) {
  const AttentionSizes sizes[] = {{3, 1, 1, 1, 1},    {3, 5, 5, 2, 3},    {2, 16, 16, 1, 16},  {3, 17, 17, 1, 5},
                                  {3, 33, 33, 2, 64}, {2, 46, 46, 1, 80}, {1, 50, 50, 1, 128}, {2, 65, 65, 1, 33},
                                  {2, 7, 40, 1, 32},  {2, 40, 7, 1, 48},  {1, 64, 60, 1, 112}};
  for (DType dtype : tested_dtypes())
    for (const AttentionSizes& n : sizes)
      for (const Mask& kind : kMasks) {
        if (is_causal(kind.kind) && n.queries != n.keys) continue;
        const Case c(dtype, n, kind);
        c.run_forward(level());
        c.run_backward(level());
        expect_right(c, GetParam(),
                     concat(kind.name, " ", to_string(dtype), " T=", n.queries, " S=", n.keys, " D=", n.size));
      }
}

TEST_P(AttentionTest, SeveralBlocksOfQueriesAndKeys) {
  for (DType dtype : tested_dtypes()) {
    for (const Mask& kind : {kMasks[0], kMasks[5]}) {
      const Case c(dtype, {2, 197, 197, 1, 64}, kind);
      c.run_forward(level());
      c.run_backward(level());
      expect_right(c, GetParam(), concat("197 ", kind.name, to_string(dtype)));
    }
    const Case heads(dtype, {1, 66, 66, 1, 128}, kMasks[5]);
    heads.run_forward(level());
    heads.run_backward(level());
    expect_right(heads, GetParam(), concat("heads of 128 ", to_string(dtype)));
    const Case wide(dtype, {1, 300, 530, 1, 8}, kMasks[8]);
    wide.run_forward(level());
    wide.run_backward(level());
    expect_right(wide, GetParam(), concat("300 x 530 ", to_string(dtype)));
    const Case causal(dtype, {1, 550, 550, 1, 8}, kMasks[2]);
    causal.run_forward(level());
    causal.run_backward(level());
    expect_right(causal, GetParam(), concat("550 causal ", to_string(dtype)));
  }
}

TEST_P(AttentionTest, LongRowsUnderCausalMasks) {
  // Several tiles and steps on every target, of which the causal rule hides some and the open row needs some of these.
  for (DType dtype : tested_dtypes())
    for (const AttentionSizes& n : {AttentionSizes{2, 150, 150, 1, 20}, {1, 100, 100, 2, 72}})
      for (const Mask& kind : kMasks) {
        if (!is_causal(kind.kind)) continue;
        const Case c(dtype, n, kind);
        c.run_forward(level());
        c.run_backward(level());
        expect_right(c, GetParam(), concat(kind.name, " ", to_string(dtype), " T=", n.queries));
      }
}

TEST_P(AttentionTest, LargeHeads) {
  for (DType dtype : tested_dtypes())
    for (const AttentionSizes& n : {AttentionSizes{1, 37, 70, 1, 96}, {1, 37, 70, 2, 200}, {1, 20, 40, 1, 300}}) {
      const Case c(dtype, n, kMasks[9]);
      c.run_forward(level());
      c.run_backward(level());
      expect_right(c, GetParam(), concat(to_string(dtype), " D=", n.size));
    }
}

TEST_P(AttentionTest, LargeScoresStayFinite) {
  for (DType dtype : tested_dtypes()) {
    Case c(dtype, {1, 20, 20, 1, 16});
    c.q = random_tensor(dtype, c.q_shape(), 1, 100.0);  // scores of several hundred: a softmax of 0 and 1
    c.run_forward(level());
    c.run_backward(level());
    const auto want = c.wanted();
    // A score of 500 is known to 2^-15 or so in f32: that much of a probability.
    const double of_score = dtype == kF16 ? 0x1p-11 + 0x1p-12 : dtype == kBF16 ? 0x1p-8 : 0x1p-12;
    EXPECT_TRUE(all_close(c.out, want.out, {largest(values_of(c.v)) * of_score, dtype == kF16 ? 0x1p-10 : 0x1p-7}));
    for (const OwnedTensor* t : {&c.dq, &c.dk, &c.dv})
      for (double value : values_of(*t)) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_P(AttentionTest, EveryChoiceOfWantedGradients) {
  // One tile, and several.
  for (const auto& [dtype, tokens] :
       std::vector<std::pair<DType, size_t>>{{kF32, 37}, {kBF16, 37}, {kBF16, 70}, {tested_dtypes().back(), 37}}) {
    const AttentionSizes n{2, tokens, tokens, 2, 20};
    const Case all(dtype, n, kMasks[3]);
    all.run_forward(level());
    all.run_backward(level());
    for (int wanted = 0; wanted < 8; ++wanted) {
      const Case some(dtype, n, kMasks[3]);
      some.run_forward(level());
      AttentionBackward args = some.backward_args();
      if (!(wanted & 1)) args.dq = {};
      if (!(wanted & 2)) args.dk = {};
      if (!(wanted & 4)) args.dv = {};
      some.run_backward(level(), args);
      const auto untouched = [](const OwnedTensor& t) {
        return same_bits(t, filled_tensor(t.view().dtype(), t.view().shape(), 0xff));
      };
      EXPECT_TRUE(wanted & 1 ? same_bits(some.dq, all.dq) : untouched(some.dq)) << wanted;
      EXPECT_TRUE(wanted & 2 ? same_bits(some.dk, all.dk) : untouched(some.dk)) << wanted;
      EXPECT_TRUE(wanted & 4 ? same_bits(some.dv, all.dv) : untouched(some.dv)) << wanted;
      EXPECT_TRUE(same_bits(some.dout, all.dout));
    }
  }
}

TEST_P(AttentionTest, ForwardWithoutLseGivesTheSameBits) {
  for (DType dtype : tested_dtypes()) {
    const Case with(dtype, {1, 19, 19, 2, 24}), without(dtype, {1, 19, 19, 2, 24});
    with.run_forward(level());
    AttentionForward args = without.forward_args();
    args.lse = {};
    attention_forward_at(level(), device_context(1), args, without.workspace(false, 1));
    EXPECT_TRUE(same_bits(with.out, without.out));
    EXPECT_TRUE(same_bits(without.lse, filled_tensor(DType::kF32, {1, 2, 19}, 0xff)));
  }
}

TEST_P(AttentionTest, SameBitsForAnyThreadsAndBatch) {
  for (DType dtype : tested_dtypes()) {
    const AttentionSizes n{3, 270, 270, 2, 40};
    const Case one(dtype, n, kMasks[3]);
    one.run_forward(level(), 1);
    one.run_backward(level(), 1);
    for (int threads : {2, 3}) {
      const Case many(dtype, n, kMasks[3]);
      many.run_forward(level(), threads);
      many.run_backward(level(), threads);
      for (auto [a, b] : {std::pair{&one.out, &many.out},
                          {&one.lse, &many.lse},
                          {&one.dq, &many.dq},
                          {&one.dk, &many.dk},
                          {&one.dv, &many.dv}})
        EXPECT_TRUE(same_bits(*a, *b)) << threads;
    }
    // Sample 1 alone.
    Case alone(dtype, {1, 270, 270, 2, 40}, kMasks[3]);
    const auto part = [&](const OwnedTensor& t) {
      return make_tensor(dtype, t.view().rows(1, 2).shape(), values_of(t.view().rows(1, 2)));
    };
    alone.q = part(one.q), alone.k = part(one.k), alone.v = part(one.v), alone.dout = part(one.dout);
    alone.lengths = make_tensor(DType::kI32, {1}, {values_of(one.lengths)[1]});
    alone.mask.lengths = alone.lengths;
    alone.run_forward(level());
    alone.run_backward(level());
    EXPECT_TRUE(same_bits(alone.out, one.out.view().rows(1, 2)));
    EXPECT_TRUE(same_bits(alone.dq, one.dq.view().rows(1, 2)));
    EXPECT_TRUE(same_bits(alone.dk, one.dk.view().rows(1, 2)));
    EXPECT_TRUE(same_bits(alone.dv, one.dv.view().rows(1, 2)));
  }
}

TEST_P(AttentionTest, FusedProductReadAndWrittenInPlace) {
  for (DType dtype : tested_dtypes()) {
    const AttentionSizes n{2, 21, 21, 3, 7};
    const int64_t token = 21, stride = 3 * token + 5;  // 5 elements behind each token belong to nobody
    const Case plain(dtype, n, kMasks[3]);
    plain.run_forward(level());
    plain.run_backward(level());
    Case fused(dtype, n, kMasks[3]);
    const Shape memory_shape{2, 21, stride};
    const OwnedTensor memory = filled_tensor(dtype, memory_shape, 0xff),
                      gradient = filled_tensor(dtype, memory_shape, 0xff);
    const int64_t bytes = size_of(dtype);
    const auto part = [&](const OwnedTensor& whole, int64_t index) {
      return Tensor(static_cast<std::byte*>(whole.view().raw()) + index * token * bytes, dtype, fused.q_shape(),
                    device_context().device);
    };
    const auto row = [&](const Tensor& base, int64_t r, int64_t row_stride) {
      return static_cast<std::byte*>(base.raw()) + r * row_stride * bytes;
    };
    const Tensor sources[] = {plain.q, plain.k, plain.v};
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t r = 0; r < 42; ++r)
        std::memcpy(row(part(memory, i), r, stride), row(sources[i], r, token), size_t(token * bytes));
    AttentionForward args = fused.forward_args();
    args.q = part(memory, 0), args.k = part(memory, 1), args.v = part(memory, 2);
    args.stride_q = args.stride_k = args.stride_v = stride;
    attention_forward_at(level(), device_context(2), args, fused.workspace(false, 2));
    EXPECT_TRUE(same_bits(fused.out, plain.out));
    AttentionBackward back = fused.backward_args();
    back.q = args.q, back.k = args.k, back.v = args.v;
    back.dq = part(gradient, 0), back.dk = part(gradient, 1), back.dv = part(gradient, 2);
    back.stride_q = back.stride_k = back.stride_v = stride;
    const OwnedTensor scratch = fused.workspace(true, 2);
    attention_backward_at(level(), device_context(2), back, scratch);
    finish_kernels();
    const Tensor wanted[] = {plain.dq, plain.dk, plain.dv};
    for (int64_t r = 0; r < 42; ++r) {
      for (int64_t i = 0; i < 3; ++i)
        EXPECT_EQ(std::memcmp(row(part(gradient, i), r, stride), row(wanted[i], r, token), size_t(token * bytes)), 0);
      const auto* gap = row(part(gradient, 3), r, stride);
      for (int64_t i = 0; i < 5 * bytes; ++i) EXPECT_EQ(gap[i], std::byte{0xff});
    }
    EXPECT_TRUE(gradient.canaries_intact());
  }
}

TEST_P(AttentionTest, UnalignedMemoryGivesTheSameBits) {
  for (DType dtype : tested_dtypes()) {
    const Case plain(dtype, {1, 18, 18, 1, 9});
    plain.run_forward(level());
    Case moved(dtype, {1, 18, 18, 1, 9});
    const OwnedTensor memory(dtype, {163}),
        scratch = filled_tensor(DType::kU8, {moved.workspace(false, 1).view().bytes() + 1}, 0xff);
    const Tensor q = memory.view().rows(1, 163).reshaped(moved.q_shape());
    std::memcpy(q.raw(), plain.q.view().raw(), size_t(q.bytes()));
    AttentionForward args = moved.forward_args();
    args.q = q;
    attention_forward_at(level(), device_context(1), args, scratch.view().rows(1, scratch.view().dim(0)));
    EXPECT_TRUE(same_bits(moved.out, plain.out));
    EXPECT_TRUE(scratch.canaries_intact());
  }
}

TEST_P(AttentionTest, RowsThatSeeNothingGiveZero) {
  for (DType dtype : tested_dtypes()) {
    Case c(dtype, {3, 20, 20, 2, 6}, kMasks[1]);  // lengths 20, 10, 0
    c.run_forward(level());
    c.run_backward(level());
    const size_t sample = 20 * 2 * 6;
    for (size_t i = 0; i < sample; ++i) {
      EXPECT_EQ(values_of(c.out)[2 * sample + i], 0.0);
      EXPECT_EQ(values_of(c.dq)[2 * sample + i], 0.0);
      EXPECT_EQ(values_of(c.dk)[2 * sample + i], 0.0);
      EXPECT_EQ(values_of(c.dv)[2 * sample + i], 0.0);
    }
    // Keys behind the length of sample 1 get no gradient.
    for (size_t i = sample + sample / 2; i < 2 * sample; ++i) {
      EXPECT_EQ(values_of(c.dk)[i], 0.0);
      EXPECT_EQ(values_of(c.dv)[i], 0.0);
    }
    for (size_t i = 0; i < 40; ++i) EXPECT_EQ(values_of(c.lse)[80 + i], -std::numeric_limits<double>::infinity());
    Case row(dtype, {1, 3, 20, 1, 6});
    std::vector<double> bytes(60, 1.0);
    std::fill_n(bytes.begin() + 20, 20, 0.0);
    row.allowed = make_tensor(DType::kU8, {1, 3, 20}, bytes);
    row.mask.kind = MaskKind::kExplicit, row.mask.allowed = row.allowed;
    row.run_forward(level());
    row.run_backward(level());
    for (size_t i = 6; i < 12; ++i) EXPECT_EQ(values_of(row.out)[i], 0.0);
    for (size_t i = 6; i < 12; ++i) EXPECT_EQ(values_of(row.dq)[i], 0.0);
    EXPECT_EQ(values_of(row.lse)[1], -std::numeric_limits<double>::infinity());
    expect_right(row, GetParam(), "one row hidden");
  }
}

TEST_P(AttentionTest, NanReachesWhatSeesItAndNothingElse) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const auto with_nan = [&](const OwnedTensor& t, size_t at) {
    auto values = values_of(t);
    values[at] = kNan;
    return make_tensor(t.view().dtype(), t.view().shape(), values);
  };
  for (DType dtype : tested_dtypes()) {
    const AttentionSizes n{2, 20, 20, 1, 6};  // lengths 20, 10
    Case query(dtype, n, kMasks[1]);
    query.q = with_nan(query.q, n.q(0, 3, 0, 2));
    query.run_forward(level());
    query.run_backward(level());
    for (size_t i = 0; i < n.q_elements(); ++i) {
      EXPECT_EQ(std::isnan(values_of(query.out)[i]), i / 6 == 3);
      EXPECT_EQ(std::isnan(values_of(query.dq)[i]), i / 6 == 3);
      EXPECT_EQ(std::isnan(values_of(query.dv)[i]), i < n.q_elements() / 2);
    }
    for (OwnedTensor Case::*which : {&Case::k, &Case::v}) {
      Case seen(dtype, n, kMasks[1]), hidden(dtype, n, kMasks[1]), clean(dtype, n, kMasks[1]);
      seen.*which = with_nan(seen.*which, n.k(1, 9, 0, 0));
      hidden.*which = with_nan(hidden.*which, n.k(1, 10, 0, 0));
      for (const Case* c : {&seen, &hidden, &clean}) {
        c->run_forward(level());
        c->run_backward(level());
      }
      int nans = 0;
      for (size_t i = 0; i < n.q_elements(); ++i) nans += std::isnan(values_of(seen.out)[i]);
      EXPECT_EQ(nans, which == &Case::k ? 120 : 20);  // NaN in one element of v reaches that element of every row
      EXPECT_TRUE(same_bits(hidden.out, clean.out));
      EXPECT_TRUE(same_bits(hidden.dq, clean.dq) && same_bits(hidden.dk, clean.dk) && same_bits(hidden.dv, clean.dv));
    }
  }
}

TEST_P(AttentionTest, EmptySizes) {
  for (DType dtype : tested_dtypes()) {
    for (const AttentionSizes& n :
         {AttentionSizes{0, 3, 3, 2, 4}, {2, 0, 3, 2, 4}, {2, 3, 3, 0, 4}, {2, 3, 3, 2, 0}, {2, 3, 0, 2, 4}}) {
      const Case c(dtype, n);
      c.run_forward(level());
      c.run_backward(level());
      for (const OwnedTensor* t : {&c.out, &c.dq, &c.dk, &c.dv})
        EXPECT_TRUE(all_close(*t, std::vector<double>(size_t(t->view().elements())), {}));
    }
  }
}

}  // namespace
}  // namespace permafrost
