// The open first row of eP-ALM with a length of its own, against an explicit mask that says the same.
#include <gtest/gtest.h>

#include "core/kernels/attention.h"
#include "tests/kernels/dtypes.h"
#include "tests/support/compare.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class AttentionOpenLengths : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionOpenLengths, ::testing::Values(kCpu, Target::kCuda), target_name);

constexpr int64_t kBatch = 3, kTokens = 19, kHeads = 2, kSize = 8;
const Shape kShape{kBatch, kTokens, kHeads, kSize};

OwnedTensor lengths_of(const std::vector<double>& values) { return make_tensor(DType::kI32, {kBatch}, values); }

/// 1 where a key is seen: row 0 up to open[b], the others causally up to lengths[b].
OwnedTensor explicit_mask(const std::vector<double>& lengths, const std::vector<double>& open) {
  std::vector<double> allowed;
  for (size_t b = 0; b < lengths.size(); ++b)
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t s = 0; s < kTokens; ++s)
        allowed.push_back(t == 0 ? static_cast<double>(s) < open[b] : s <= t && static_cast<double>(s) < lengths[b]);
  return make_tensor(DType::kU8, {kBatch, kTokens, kTokens}, allowed);
}

struct Results {
  OwnedTensor out, dq, dk, dv;
};

Results run(DType dtype, const AttentionMask& mask) {
  const OwnedTensor q = random_tensor(dtype, kShape, 1), k = random_tensor(dtype, kShape, 2),
                    v = random_tensor(dtype, kShape, 3), dout = random_tensor(dtype, kShape, 4),
                    lse(DType::kF32, {kBatch, kHeads, kTokens});
  Results r{OwnedTensor(dtype, kShape), OwnedTensor(dtype, kShape), OwnedTensor(dtype, kShape),
            OwnedTensor(dtype, kShape)};
  const auto workspace = [&](bool backward) {
    return OwnedTensor(DType::kU8, {attention_workspace_bytes(backward, kBatch, kTokens, kTokens, kHeads, kSize, dtype,
                                                              1, device_context().device.kind)});
  };
  const OwnedTensor forward_space = workspace(false), backward_space = workspace(true);
  attention_forward(device_context(), {q, k, v, r.out, lse, 0, 0, 0, 0.4f, mask}, forward_space);
  attention_backward(device_context(), {q, k, v, r.out, lse, dout, r.dq, r.dk, r.dv, 0, 0, 0, 0.4f, mask},
                     backward_space);
  finish_kernels();
  return r;
}

TEST_P(AttentionOpenLengths, AgreesWithTheExplicitMask) {
  const std::vector<double> lengths{19, 7, 4};
  for (const DType dtype : tested_dtypes())
    for (const std::vector<double>& open : {std::vector<double>{19, 19, 19}, {7, 12, 4}, {0, 1, 9}}) {
      const OwnedTensor length_values = lengths_of(lengths), open_values = lengths_of(open),
                        allowed = explicit_mask(lengths, open);
      AttentionMask by_length{MaskKind::kCausalOpenFirst, length_values, {}, open_values, false};
      AttentionMask by_mask{MaskKind::kExplicit, {}, allowed, {}, false};
      const Results got = run(dtype, by_length), want = run(dtype, by_mask);
      const Tolerance tolerance = tolerance_for(dtype, kTokens + kSize, 8);
      EXPECT_TRUE(all_close(got.out, values_of(want.out), tolerance));
      EXPECT_TRUE(all_close(got.dq, values_of(want.dq), tolerance));
      EXPECT_TRUE(all_close(got.dk, values_of(want.dk), tolerance));
      EXPECT_TRUE(all_close(got.dv, values_of(want.dv), tolerance));
    }
}

TEST_P(AttentionOpenLengths, TakesThePlaceOfTheFlag) {
  const std::vector<double> lengths{19, 7, 4};
  const OwnedTensor length_values = lengths_of(lengths), all = lengths_of({19, 19, 19});
  const Results flag = run(DType::kF32, {MaskKind::kCausalOpenFirst, length_values, {}, {}, true});
  const Results own = run(DType::kF32, {MaskKind::kCausalOpenFirst, length_values, {}, all, false});
  EXPECT_TRUE(same_bits(flag.out, own.out));
  const Results hidden = run(DType::kF32, {MaskKind::kCausalOpenFirst, length_values, {}, {}, false});
  const Results clean = run(DType::kF32, {MaskKind::kCausalOpenFirst, length_values, {}, length_values, true});
  EXPECT_TRUE(same_bits(hidden.out, clean.out));
}

TEST_P(AttentionOpenLengths, RefusesOtherMasksShapesAndRanges) {
  const OwnedTensor good = lengths_of({19, 7, 4}), wide = lengths_of({19, 20, 4}), wrong(DType::kI32, {kBatch + 1});
  EXPECT_TRUE(throws_error(
      [&] {
        run(DType::kF32, {MaskKind::kCausal, good, {}, good, false});
      },
      ErrorKind::kShapeMismatch, {"mask.open_lengths must be undefined unless the first row is open"}));
  EXPECT_TRUE(throws_error(
      [&] {
        run(DType::kF32, {MaskKind::kCausalOpenFirst, good, {}, wrong, false});
      },
      ErrorKind::kShapeMismatch, {"mask.open_lengths", "(4)"}));
  EXPECT_TRUE(throws_error(
      [&] {
        run(DType::kF32, {MaskKind::kCausalOpenFirst, good, {}, wide, false});
      },
      ErrorKind::kInvalidArgument, {"mask.open_lengths must lie in 0..19", "got 20 for sample 1"}));
}

}  // namespace
}  // namespace permafrost
