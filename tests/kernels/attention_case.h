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

}  // namespace permafrost::attention_testing
