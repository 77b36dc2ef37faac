#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/kernels/attention.h"
#include "core/kernels/attention_cpu.h"
#include "tests/kernels/dtypes.h"
#include "tests/reference/attention_ref.h"
#include "tests/support/kernel_test.h"

// A problem for the tests of attention.
namespace permafrost::attention_testing {

using namespace permafrost::testing;
using reference::AttentionSizes;

struct Mask {
  const char* name;
  MaskKind kind = MaskKind::kNone;
  bool with_lengths = false, open_row_sees_padding = false, with_open_lengths = false;
};
inline constexpr Mask kMasks[] = {
    {"none"},
    {"lengths", MaskKind::kNone, true},
    {"causal", MaskKind::kCausal},
    {"causal_lengths", MaskKind::kCausal, true},
    {"open_first", MaskKind::kCausalOpenFirst},
    {"open_first_lengths_clean", MaskKind::kCausalOpenFirst, true},
    {"open_first_lengths_published", MaskKind::kCausalOpenFirst, true, true},
    {"open_first_open_lengths", MaskKind::kCausalOpenFirst, true, true, true},
    {"explicit", MaskKind::kExplicit},
    {"explicit_lengths", MaskKind::kExplicit, true},
};
inline bool is_causal(MaskKind kind) { return kind == MaskKind::kCausal || kind == MaskKind::kCausalOpenFirst; }

/// Inputs, outputs and a poisoned workspace of one problem. Outputs hold NaN until written.
struct Case {
  DType dtype;
  AttentionSizes n;
  float scale;
  OwnedTensor q, k, v, dout, out, lse, dq, dk, dv, lengths, open_lengths, allowed;
  AttentionMask mask;

  Case(DType type, const AttentionSizes& sizes) : dtype(type), n(sizes), scale(1.0f / std::sqrt(float(sizes.size))) {
    q = random_tensor(dtype, q_shape(), 1), k = random_tensor(dtype, k_shape(), 2);
    v = random_tensor(dtype, k_shape(), 3), dout = random_tensor(dtype, q_shape(), 4);
    clear_outputs();
  }
  Case(DType type, const AttentionSizes& sizes, const Mask& kind) : Case(type, sizes) { set_mask(kind); }

  Shape q_shape() const { return {int64_t(n.batch), int64_t(n.queries), int64_t(n.heads), int64_t(n.size)}; }
  Shape k_shape() const { return {int64_t(n.batch), int64_t(n.keys), int64_t(n.heads), int64_t(n.size)}; }
  void clear_outputs() {
    out = filled_tensor(dtype, q_shape(), 0xff), dq = filled_tensor(dtype, q_shape(), 0xff);
    dk = filled_tensor(dtype, k_shape(), 0xff), dv = filled_tensor(dtype, k_shape(), 0xff);
    lse = filled_tensor(DType::kF32, {int64_t(n.batch), int64_t(n.heads), int64_t(n.queries)}, 0xff);
  }
  /// Lengths S, about S/2, 0, S, ...; an explicit mask of which about a third is hidden, one row wholly.
  void set_mask(const Mask& kind) {
    mask.kind = kind.kind;
    mask.open_row_sees_padding = kind.open_row_sees_padding;
    if (kind.with_lengths) {
      std::vector<double> values;
      for (size_t b = 0; b < n.batch; ++b)
        values.push_back(b % 3 == 0 ? double(n.keys) : b % 3 == 1 ? std::floor(double(n.keys) / 2) : 0.0);
      lengths = make_tensor(DType::kI32, {int64_t(n.batch)}, values);
      mask.lengths = lengths;
    }
    if (kind.with_open_lengths) {  // S - 1, and 0 for sample 1: more and less than its lengths
      std::vector<double> values(n.batch, double(n.keys) - 1);
      if (n.batch > 1) values[1] = 0;
      open_lengths = make_tensor(DType::kI32, {int64_t(n.batch)}, values);
      mask.open_lengths = open_lengths;
    }
    if (kind.kind == MaskKind::kExplicit) {
      Random random(9, RandomPurpose::kSynthetic);
      std::vector<double> values(n.batch * n.queries * n.keys);
      for (double& value : values) value = double(random.next_below(3));
      for (size_t s = 0; s < n.keys && n.queries > 1; ++s) values[n.pair(0, 1, s)] = 0;
      allowed = make_tensor(DType::kU8, {int64_t(n.batch), int64_t(n.queries), int64_t(n.keys)}, values);
      mask.allowed = allowed;
    }
  }
  std::vector<uint8_t> seen() const {
    std::vector<int64_t> valid, open;
    std::vector<uint8_t> bytes;
    if (mask.open_lengths)
      for (double value : values_of(mask.open_lengths)) open.push_back(int64_t(value));
    if (mask.lengths)
      for (double value : values_of(mask.lengths)) valid.push_back(int64_t(value));
    if (mask.allowed)
      for (double value : values_of(mask.allowed)) bytes.push_back(uint8_t(value));
    return reference::visibility(n, mask.kind, valid, open, bytes, mask.open_row_sees_padding);
  }
  AttentionForward forward_args() const {
    return {.q = q, .k = k, .v = v, .out = out, .lse = lse, .scale = scale, .mask = mask};
  }
  AttentionBackward backward_args() const {
    return {.q = q,
            .k = k,
            .v = v,
            .out = out,
            .lse = lse,
            .dout = dout,
            .dq = dq,
            .dk = dk,
            .dv = dv,
            .scale = scale,
            .mask = mask};
  }
  OwnedTensor workspace(bool backward, int threads) const {
    const int64_t bytes =
        attention_workspace_bytes(backward, int64_t(n.batch), int64_t(n.queries), int64_t(n.keys), int64_t(n.heads),
                                  int64_t(n.size), dtype, threads, device_context().device.kind);
    return filled_tensor(DType::kU8, {bytes}, 0xff);
  }
  void run_forward(SimdLevel level, int threads = 2) const {
    const OwnedTensor scratch = workspace(false, threads);
    attention_forward_at(level, device_context(threads), forward_args(), scratch);
    EXPECT_TRUE(scratch.canaries_intact() && out.canaries_intact() && lse.canaries_intact());
  }
  void run_backward(SimdLevel level, int threads = 2) const { run_backward(level, backward_args(), threads); }
  void run_backward(SimdLevel level, const AttentionBackward& args, int threads = 2) const {
    const OwnedTensor scratch = workspace(true, threads);
    attention_backward_at(level, device_context(threads), args, scratch);
    EXPECT_TRUE(scratch.canaries_intact() && dq.canaries_intact() && dk.canaries_intact() && dv.canaries_intact());
  }
  reference::Attention<double> wanted() const {
    return reference::attention(n, seen(), double{scale}, values_of(q), values_of(k), values_of(v));
  }
};

inline double largest(const std::vector<double>& values) {
  double result = 0;
  for (double value : values) result = std::max(result, std::abs(value));
  return result;
}

/// Scores are sums of `size` products in f32, whose error e makes a relative error e of a probability.
inline Tolerance tolerance(DType dtype, Target target, size_t length, size_t size, double magnitude) {
  Tolerance t = tolerance_for(dtype, int64_t(length + size), 4.0 * magnitude);
  // AMX and CUDA: every term has a factor rounded to bf16 or f16 on its way into the product.
  if (dtype != DType::kF32 && (target == Target::kAmx || target == Target::kCuda))
    t.absolute += unit_of(dtype) * magnitude + static_cast<double>(length) * subnormal_of(dtype) * 4.0;
  return t;
}

/// Compares a finished Case with the reference.
inline void expect_right(const Case& c, Target target, const std::string& what) {
  const auto want = c.wanted();
  const double v_size = largest(values_of(c.v));
  EXPECT_TRUE(all_close(c.out, want.out, tolerance(c.dtype, target, c.n.keys, c.n.size, v_size))) << what;
  const auto lse = values_of(c.lse);
  for (size_t i = 0; i < lse.size(); ++i) {
    if (std::isinf(want.lse[i]))
      EXPECT_EQ(lse[i], want.lse[i]) << what;
    else
      EXPECT_NEAR(lse[i], want.lse[i], tolerance_for(DType::kF32, int64_t(c.n.keys + c.n.size), 8.0).absolute) << what;
  }
  const auto g = reference::attention_gradients(c.n, double{c.scale}, want.p, values_of(c.q), values_of(c.k),
                                                values_of(c.v), values_of(c.out), values_of(c.dout));
  EXPECT_TRUE(all_close(c.dq, g.dq, tolerance(c.dtype, target, c.n.keys, c.n.size, g.dq_magnitude))) << what << " dq";
  EXPECT_TRUE(all_close(c.dk, g.dk, tolerance(c.dtype, target, c.n.queries, c.n.size, g.dk_magnitude)))
      << what << " dk";
  EXPECT_TRUE(all_close(c.dv, g.dv, tolerance(c.dtype, target, c.n.queries, c.n.size, g.dv_magnitude)))
      << what << " dv";
}

}  // namespace permafrost::attention_testing
