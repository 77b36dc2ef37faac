// Attention of cuDNN and what stands around it, against the reference. On a GPU with a cuDNN these tests fail where
// cuDNN refuses what is usually left to it; on the emulation the project's own kernels take its place.
#include <array>
#include <cstring>
#include <span>

#include "core/device/cudnn.h"
#include "tests/kernels/attention_case.h"

namespace permafrost {
namespace {

using namespace permafrost::attention_testing;

bool emulated() { return cuda::find_cudnn().version == "emulated"; }

class CudnnAttention : public KernelTest {
 protected:
  void SetUp() override {
    KernelTest::SetUp();
    if (IsSkipped()) return;
    if (!cuda::find_cudnn().missing.empty()) GTEST_SKIP() << "no cuDNN: " << cuda::find_cudnn().missing;
    const cuda::DeviceInfo info = cuda::device_info(0);
    if (!emulated() && info.major != 9)
      GTEST_SKIP() << "cuDNN's attention is used on compute capability 9; got " << info.major << "." << info.minor;
    cuda::use_cudnn(queue(), cuda::CudnnUse::kAlways);
    cuda::on_note(queue(), [this](const std::string& note) { notes_ += note + "\n"; });
  }
  void TearDown() override {
    if (!IsSkipped()) {
      cuda::use_cudnn(queue(), cuda::CudnnUse::kNever);
      cuda::on_note(queue(), {});
      EXPECT_EQ(notes_, "");
    }
    KernelTest::TearDown();
  }
  static cuda::Queue& queue() { return *device_context().stream.queue(); }

  std::string notes_;
};
INSTANTIATE_TEST_SUITE_P(Targets, CudnnAttention, ::testing::Values(Target::kCuda), target_name);

/// Memory of the device itself, as in a run; tests' tensors are the host's, which a device reads through its bus.
struct OnDevice {
  Buffer memory;
  int64_t bytes;
  explicit OnDevice(int64_t size, int byte = 0xff)
      : memory("test of attention", std::max<int64_t>(size, 1), used_device()), bytes(size) {
    cuda::fill(*device_context().stream.queue(), memory.data(), byte, bytes);
  }
};

/// A Case on the device. fused: q, k and v lie in one tensor (B, T, 3, H, D), and so do their gradients.
struct DeviceCase {
  const Case& c;
  bool fused;
  OnDevice q, k, v, dout, out, lse, dq, dk, dv, lengths, open_lengths, forward_space, backward_space;

  DeviceCase(const Case& c, bool fused)
      : c(c),
        fused(fused),
        q(bytes_of(c.q) * (fused ? 3 : 1)),
        k(bytes_of(c.k)),
        v(bytes_of(c.v)),
        dout(bytes_of(c.dout)),
        out(bytes_of(c.out)),
        lse(bytes_of(c.lse)),
        dq(q.bytes),
        dk(k.bytes),
        dv(v.bytes),
        lengths(c.mask.lengths ? bytes_of(c.lengths) : 0),
        open_lengths(c.mask.open_lengths ? bytes_of(c.open_lengths) : 0),
        forward_space(space(false)),
        backward_space(space(true)) {
    each_input([&](const OnDevice& to, int64_t offset, const OwnedTensor& from) { send(to, offset, from); });
    copy(dout.memory.data(), c.dout.view().raw(), dout.bytes);
    if (c.mask.lengths) copy(lengths.memory.data(), c.lengths.view().raw(), lengths.bytes);
    if (c.mask.open_lengths) copy(open_lengths.memory.data(), c.open_lengths.view().raw(), open_lengths.bytes);
  }

  static int64_t bytes_of(const OwnedTensor& t) { return t.view().bytes(); }
  int64_t space(bool backward) const {
    return attention_workspace_bytes(backward, int64_t(c.n.batch), int64_t(c.n.queries), int64_t(c.n.keys),
                                     int64_t(c.n.heads), int64_t(c.n.size), c.dtype, 1, DeviceKind::kCuda);
  }
  int64_t token() const { return int64_t(c.n.heads * c.n.size); }
  static void copy(void* to, const void* from, int64_t bytes) {
    cuda::copy(*device_context().stream.queue(), to, from, bytes);
  }
  template <typename Body>
  void each_input(Body&& body) const {
    body(q, 0, c.q), body(fused ? q : k, fused ? 1 : 0, c.k), body(fused ? q : v, fused ? 2 : 0, c.v);
  }
  /// Part `index` of the rows of a fused tensor, or the whole of a plain one.
  void send(const OnDevice& to, int64_t index, const OwnedTensor& from) const {
    if (!fused) return copy(to.memory.data(), from.view().raw(), bytes_of(from));
    const int64_t row = token() * 2;
    for (int64_t r = 0; r < bytes_of(from) / row; ++r)
      copy(to.memory.data() + (3 * r + index) * row, static_cast<std::byte*>(from.view().raw()) + r * row, row);
  }
  void fetch(const OwnedTensor& to, const OnDevice& from, int64_t index) const {
    if (!fused) return copy(to.view().raw(), from.memory.data(), bytes_of(to));
    const int64_t row = token() * 2;
    for (int64_t r = 0; r < bytes_of(to) / row; ++r)
      copy(static_cast<std::byte*>(to.view().raw()) + r * row, from.memory.data() + (3 * r + index) * row, row);
  }
  Tensor part(const OnDevice& of, int64_t index, const Shape& shape) const {
    return {of.memory.data() + (fused ? index * token() * 2 : 0), c.dtype, shape, used_device()};
  }
  AttentionMask mask() const {
    AttentionMask m = c.mask;
    const Shape batch{int64_t(c.n.batch)};
    if (m.lengths) m.lengths = Tensor(lengths.memory.data(), DType::kI32, batch, used_device());
    if (m.open_lengths) m.open_lengths = Tensor(open_lengths.memory.data(), DType::kI32, batch, used_device());
    return m;
  }
  static Tensor bytes_on(const OnDevice& d) { return {d.memory.data(), DType::kU8, {d.bytes}, used_device()}; }

  template <typename Args>
  Args common() const {
    Args args;
    args.q = part(q, 0, c.q_shape());
    args.k = part(fused ? q : k, 1, c.k_shape());
    args.v = part(fused ? q : v, 2, c.k_shape());
    args.out = Tensor(out.memory.data(), c.dtype, c.q_shape(), used_device());
    args.lse = Tensor(lse.memory.data(), DType::kF32, c.lse.view().shape(), used_device());
    args.stride_q = args.stride_k = args.stride_v = fused ? 3 * token() : 0;
    args.scale = c.scale;
    args.mask = mask();
    return args;
  }
  AttentionBackward backward_args() const {
    auto args = common<AttentionBackward>();
    args.dout = Tensor(dout.memory.data(), c.dtype, c.q_shape(), used_device());
    args.dq = part(dq, 0, c.q_shape());
    args.dk = part(fused ? dq : dk, 1, c.k_shape());
    args.dv = part(fused ? dq : dv, 2, c.k_shape());
    return args;
  }
  void forward() const { attention_forward(device_context(), common<AttentionForward>(), bytes_on(forward_space)); }
  void backward() const { attention_backward(device_context(), backward_args(), bytes_on(backward_space)); }
  void clear() const {
    for (const OnDevice* d : {&out, &lse, &dq, &dk, &dv, &forward_space, &backward_space})
      cuda::fill(*device_context().stream.queue(), d->memory.data(), 0xff, d->bytes);
  }
  /// What was computed, to where the Case has it.
  void fetch() const {
    copy(c.out.view().raw(), out.memory.data(), out.bytes);
    copy(c.lse.view().raw(), lse.memory.data(), lse.bytes);
    fetch(c.dq, dq, 0), fetch(c.dk, fused ? dq : dk, 1), fetch(c.dv, fused ? dq : dv, 2);
    finish_kernels();
  }
  /// Forward and backward, both in cuDNN.
  void run() const {
    cuda::Queue& queue = *device_context().stream.queue();
    const int64_t before = cuda::cudnn_calls(queue);
    forward();
    backward();
    fetch();
    EXPECT_EQ(cuda::cudnn_calls(queue), before + 2) << "not computed in cuDNN";
  }
};

std::string text_of(const Case& c, const Mask& mask, bool fused) {
  return concat(mask.name, " ", to_string(c.dtype), " B=", c.n.batch, " T=", c.n.queries, " S=", c.n.keys,
                " H=", c.n.heads, " D=", c.n.size, fused ? " fused" : "");
}

void expect_same(const Case& a, const Case& b, const std::string& what) {
  EXPECT_TRUE(same_bits(a.out, b.out)) << what;
  EXPECT_TRUE(same_bits(a.lse, b.lse)) << what;
  EXPECT_TRUE(same_bits(a.dq, b.dq)) << what << " dq";
  EXPECT_TRUE(same_bits(a.dk, b.dk)) << what << " dk";
  EXPECT_TRUE(same_bits(a.dv, b.dv)) << what << " dv";
}

template <typename Body>
void each_mask(const AttentionSizes& n, Body&& body) {
  for (const Mask& mask : kMasks)
    if (mask.kind != MaskKind::kExplicit && (n.queries == n.keys || (!is_causal(mask.kind) && !mask.with_lengths)))
      body(mask);
}

constexpr std::array kTypes = {kBF16, kF16};

/// Every shape is a plan of cuDNN, which takes it a part of a second to make: each size has a third of the masks, each
/// mask three sizes at least, and every second case lies in fused tensors.
TEST_P(CudnnAttention, EveryMaskAtManySizes) {
  const std::vector<AttentionSizes> all{{3, 16, 16, 2, 16},    {2, 7, 40, 2, 64},  {3, 20, 20, 1, 72},
                                        {3, 33, 33, 2, 64},    {2, 46, 46, 3, 80}, {4, 60, 60, 2, 80},
                                        {1, 130, 130, 1, 128}, {2, 65, 65, 2, 96}, {3, 40, 7, 2, 128}};
  for (size_t size = 0; size < (emulated() ? 3 : all.size()); ++size) {
    const AttentionSizes& n = all[size];
    size_t number = 0;
    each_mask(n, [&](const Mask& mask) {
      if (++number % 3 != size % 3 && n.queries == n.keys) return;
      const bool fused = n.queries == n.keys && (number + size) % 2 == 0;
      const Case c(kTypes[(number / 3 + size) % 2], n, mask);
      DeviceCase(c, fused).run();
      expect_right(c, GetParam(), text_of(c, mask, fused));
    });
  }
}

/// Backward as OPT has it: q, k, v and their gradients in rows of one product, under every mask that a text may have.
TEST_P(CudnnAttention, RowsOfOneProductUnderEveryMask) {
  const AttentionSizes n{3, 21, 21, 2, 16};
  each_mask(n, [&](const Mask& mask) {
    const Case c(kBF16, n, mask), apart(kBF16, n, mask);
    DeviceCase(c, true).run();
    expect_right(c, GetParam(), text_of(c, mask, true));
    if (!emulated()) return;  // there is another plan for other strides
    DeviceCase(apart, false).run();
    expect_same(c, apart, text_of(c, mask, true));
  });
}

TEST_P(CudnnAttention, ModelsShapes) {
  // ViT's 197 patches; text of 241 tokens; keys of several tiles.
  if (emulated()) GTEST_SKIP() << "takes a minute on the emulation, and shows nothing there";
  for (const AttentionSizes& n : {AttentionSizes{2, 197, 197, 2, 64}, {3, 241, 241, 2, 64}, {1, 300, 300, 1, 128}})
    for (DType dtype : kTypes)
      for (const Mask& mask : {kMasks[0], kMasks[3], kMasks[7]}) {
        const Case c(dtype, n, mask);
        DeviceCase(c, true).run();
        expect_right(c, GetParam(), text_of(c, mask, true));
      }
}

TEST_P(CudnnAttention, SameBitsInEveryRunAndUnderCapture) {
  for (const Mask& mask : {kMasks[0], kMasks[3], kMasks[7]}) {
    const AttentionSizes n{3, 70, 70, 2, 64};
    const Case first(kBF16, n, mask), again(kBF16, n, mask), captured(kBF16, n, mask);
    DeviceCase(first, true).run();
    for (int run = 0; run < (emulated() ? 1 : 20); ++run) {
      DeviceCase(again, true).run();
      expect_same(first, again, text_of(first, mask, true));
    }
    const DeviceCase d(captured, true);
    d.forward();
    d.backward();
    finish_kernels();
    cuda::begin_capture(queue());
    d.forward();
    d.backward();
    const cuda::OwnedCapture work(cuda::end_capture(queue()));
    for (int run = 0; run < 2; ++run) {
      d.clear();
      cuda::launch(queue(), *work);
      d.fetch();
      expect_same(first, captured, concat(text_of(first, mask, true), " captured"));
    }
  }
}

TEST_P(CudnnAttention, SameBitsForAnyBatch) {
  for (const Mask& mask : {kMasks[0], kMasks[2]}) {
    const Case all(kBF16, {3, 100, 100, 2, 64}, mask);
    DeviceCase(all, false).run();
    Case alone(kBF16, {1, 100, 100, 2, 64}, mask);
    const auto part = [&](const OwnedTensor& t) {
      return make_tensor(kBF16, t.view().rows(1, 2).shape(), values_of(t.view().rows(1, 2)));
    };
    alone.q = part(all.q), alone.k = part(all.k), alone.v = part(all.v), alone.dout = part(all.dout);
    DeviceCase(alone, false).run();
    EXPECT_TRUE(same_bits(alone.out, all.out.view().rows(1, 2)));
    EXPECT_TRUE(same_bits(alone.dq, all.dq.view().rows(1, 2)));
    EXPECT_TRUE(same_bits(alone.dk, all.dk.view().rows(1, 2)));
    EXPECT_TRUE(same_bits(alone.dv, all.dv.view().rows(1, 2)));
  }
}

TEST_P(CudnnAttention, PartsOfABatchGiveWhatOwnKernelsGive) {
  if (emulated()) GTEST_SKIP() << "takes hours on the emulation";
  const AttentionSizes n{3, 2048, 2048, 16, 128};  // two samples at once
  for (const Mask& mask : {kMasks[2], kMasks[3]}) {
    const Case c(kBF16, n, mask), own(kBF16, n, mask);
    DeviceCase(c, false).run();
    cuda::use_cudnn(queue(), cuda::CudnnUse::kNever);
    const DeviceCase d(own, false);
    d.forward();
    d.backward();
    d.fetch();
    cuda::use_cudnn(queue(), cuda::CudnnUse::kAlways);
    for (auto [got, want] : {std::pair{&c.out, &own.out}, {&c.dq, &own.dq}, {&c.dk, &own.dk}, {&c.dv, &own.dv}}) {
      const auto *a = static_cast<const bfloat16*>(got->view().raw()),
                 *b = static_cast<const bfloat16*>(want->view().raw());
      double difference = 0, size = 0;
      for (int64_t i = 0; i < got->view().elements(); ++i) {
        const double x = static_cast<float>(a[i]), y = static_cast<float>(b[i]);
        difference += (x - y) * (x - y), size += y * y;
      }
      EXPECT_LT(std::sqrt(difference / size), 0x1p-7) << mask.name;
      EXPECT_GT(size, 0.0);
    }
  }
}

TEST_P(CudnnAttention, ForwardWithoutLseGivesTheSameBits) {
  const Case with(kBF16, {2, 50, 50, 2, 64}, kMasks[3]), without(kBF16, {2, 50, 50, 2, 64}, kMasks[3]);
  DeviceCase(with, false).run();
  const DeviceCase d(without, false);
  auto args = d.common<AttentionForward>();
  args.lse = {};
  attention_forward(device_context(), args, DeviceCase::bytes_on(d.forward_space));
  d.fetch();
  EXPECT_TRUE(same_bits(with.out, without.out));
}

TEST_P(CudnnAttention, OwnKernelsTakeItsLseAndItTheirs) {
  for (const Mask& mask : {kMasks[0], kMasks[3], kMasks[7]})
    for (const bool own_first : {false, true}) {
      const Case c(kBF16, {3, 60, 60, 2, 64}, mask);
      const DeviceCase d(c, false);
      cuda::use_cudnn(queue(), own_first ? cuda::CudnnUse::kNever : cuda::CudnnUse::kAlways);
      d.forward();
      cuda::use_cudnn(queue(), own_first ? cuda::CudnnUse::kAlways : cuda::CudnnUse::kNever);
      d.backward();
      cuda::use_cudnn(queue(), cuda::CudnnUse::kAlways);
      d.fetch();
      expect_right(c, GetParam(), concat(text_of(c, mask, false), own_first ? " own first" : " cuDNN first"));
    }
}

TEST_P(CudnnAttention, KeysBehindTheLengthMayBeNan) {
  for (const Mask& mask : {kMasks[1], kMasks[3]}) {
    const AttentionSizes n{3, 80, 80, 1, 64};  // lengths 80, 40, 0
    const Case clean(kBF16, n, mask);
    DeviceCase(clean, false).run();
    Case hidden(kBF16, n, mask);
    auto values = values_of(hidden.k);
    for (size_t i = n.k(1, 40, 0, 0); i < values.size(); ++i) values[i] = std::nan("");
    hidden.k = make_tensor(kBF16, hidden.k_shape(), values);
    DeviceCase(hidden, false).run();
    expect_same(clean, hidden, text_of(clean, mask, false));
  }
}

TEST_P(CudnnAttention, LengthsOutOfRangeAreRefused) {
  for (const Mask& mask : {kMasks[3], kMasks[7]}) {
    Case c(kBF16, {2, 20, 20, 2, 16}, mask);
    c.lengths = make_tensor(DType::kI32, {2}, {20, 21}), c.mask.lengths = c.lengths;
    const DeviceCase d(c, false);
    const std::string expected = "mask.lengths must lie in 0..20; got 21 for sample 1";
    EXPECT_TRUE(throws_error([&] { d.forward(); }, ErrorKind::kInvalidArgument, {expected}));
    EXPECT_TRUE(throws_error([&] { d.backward(); }, ErrorKind::kInvalidArgument, {expected}));
  }
}

TEST_P(CudnnAttention, WhatItIsNotForRunsInOwnKernels) {
  const int64_t before = cuda::cudnn_calls(queue());
  const auto right = [&](const Case& c, const std::string& what) {
    c.run_forward(level());
    c.run_backward(level());
    expect_right(c, GetParam(), what);
  };
  right(Case(kF32, {2, 20, 20, 2, 16}), "f32");
  right(Case(kBF16, {2, 20, 20, 2, 12}), "head size 12");
  right(Case(kBF16, {1, 20, 20, 1, 136}), "head size 136");
  right(Case(kBF16, {2, 20, 20, 2, 16}, kMasks[8]), "explicit");
  right(Case(kBF16, {2, 1, 20, 2, 16}), "one query");
  right(Case(kBF16, {2, 7, 20, 2, 16}, kMasks[1]), "lengths of keys that need not have been computed");
  EXPECT_EQ(cuda::cudnn_calls(queue()), before);
}

TEST_P(CudnnAttention, ARefusalIsNotedAndOwnKernelsRun) {
  if (!emulated()) GTEST_SKIP() << "the emulation refuses 7 heads; nothing is known that a cuDNN refuses";
  const Case c(kBF16, {2, 20, 20, 7, 16}, kMasks[3]);
  const int64_t before = cuda::cudnn_calls(queue());
  const DeviceCase d(c, false);
  d.forward();
  d.backward();
  d.fetch();
  expect_right(c, GetParam(), "refused");
  EXPECT_EQ(cuda::cudnn_calls(queue()), before);
  EXPECT_NE(notes_.find("attention runs without cuDNN: the emulation refuses 7 heads"), std::string::npos) << notes_;
  notes_.clear();
}

}  // namespace
}  // namespace permafrost
