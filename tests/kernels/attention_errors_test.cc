#include "tests/kernels/attention_case.h"

namespace permafrost {
namespace {

using namespace permafrost::attention_testing;

class AttentionErrorsTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionErrorsTest, ::testing::Values(kCpu, Target::kCuda), target_name);

TEST_P(AttentionErrorsTest, RefusesLengthsOutOfRangeAndSmallWorkspaces) {
  const ErrorKind argument = ErrorKind::kInvalidArgument;
  const auto ints = [](const std::vector<double>& v) { return make_tensor(DType::kI32, {int64_t(v.size())}, v); };
  const auto good = ints({5, 0}), long_ = ints({5, 6}), negative = ints({-1, 5});
  for (DType dtype : kDtypes) {
    Case c(dtype, {2, 5, 5, 3, 6}, kMasks[4]);
    const OwnedTensor forward_space = c.workspace(false, 1), backward_space = c.workspace(true, 1);
    const auto forward = [&] { attention_forward_at(level(), device_context(), c.forward_args(), forward_space); };
    const auto backward = [&] { attention_backward_at(level(), device_context(), c.backward_args(), backward_space); };
    forward();
    c.mask.lengths = long_;
    EXPECT_TRUE(throws_error(forward, argument, {"attention", "mask.lengths must lie in 0..5; got 6 for sample 1"}));
    EXPECT_TRUE(throws_error(backward, argument, {"attention", "mask.lengths must lie in 0..5; got 6 for sample 1"}));
    c.mask.lengths = negative;
    EXPECT_TRUE(throws_error(forward, argument, {"mask.lengths must lie in 0..5; got -1 for sample 0"}));
    EXPECT_TRUE(throws_error(backward, argument, {"mask.lengths must lie in 0..5; got -1 for sample 0"}));
    c.mask.lengths = good;
    c.mask.open_lengths = long_;
    EXPECT_TRUE(throws_error(forward, argument, {"mask.open_lengths must lie in 0..5; got 6 for sample 1"}));
    AttentionBackward queries_alone = c.backward_args(), keys_alone = c.backward_args();
    queries_alone.dk = queries_alone.dv = keys_alone.dq = {};
    for (const AttentionBackward& args : {queries_alone, keys_alone})
      EXPECT_TRUE(throws_error([&] { attention_backward_at(level(), device_context(), args, backward_space); },
                               argument, {"mask.open_lengths must lie in 0..5; got 6 for sample 1"}));
    c.mask.open_lengths = good;
    forward();  // a refusal leaves nothing behind
    EXPECT_TRUE(throws_error([&] { attention_backward_at(level(), device_context(), c.backward_args(), {}); },
                             ErrorKind::kShapeMismatch, {"attention_backward: workspace must have at least", "got 0"}));
  }
}

TEST(Attention, WorkspaceOnCudaIsOneNumberPerQueryAndHead) {
  for (const int threads : {1, 7})
    for (const auto& [dtype, size] : {std::pair{DType::kF32, 8}, {DType::kBF16, 12}, {DType::kF16, 136}}) {
      EXPECT_EQ(attention_workspace_bytes(false, 2, 3, 5, 4, size, dtype, threads, DeviceKind::kCuda), 0);
      EXPECT_EQ(attention_workspace_bytes(true, 2, 3, 5, 4, size, dtype, threads, DeviceKind::kCuda), 256 + 256);
      EXPECT_EQ(attention_workspace_bytes(true, 0, 3, 5, 4, size, dtype, threads, DeviceKind::kCuda), 0);
    }
}

TEST(Attention, WorkspaceOnCudaHasRoomForCudnn) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  const auto bytes = [](bool backward, int64_t batch, int64_t tokens, int64_t heads, int64_t size) {
    return attention_workspace_bytes(backward, batch, tokens, tokens, heads, size, DType::kBF16, 1, DeviceKind::kCuda);
  };
  EXPECT_EQ(bytes(false, 4, 2048, 32, 128), kMiB + kMiB + 256 + 256);            // lse, cuDNN's, lengths
  EXPECT_EQ(bytes(true, 4, 2048, 32, 128), 2 * kMiB + 256 * kMiB + kMiB + 512);  // one sample's scores at once
  EXPECT_EQ(bytes(true, 2, 100, 3, 64), 2 * 2560 + 6 * 128 * 128 * 2 + kMiB + 512);
}

TEST(Attention, Errors) {
  const Context cpu = cpu_context();
  const ErrorKind shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  const Case c(DType::kF32, {2, 4, 5, 3, 6});
  const auto half = random_tensor(DType::kBF16, {2, 4, 3, 6}, 1), flat = random_tensor(DType::kF32, {8, 18}, 1);
  const auto wide = random_tensor(DType::kF32, {2, 4, 3, 7}, 1);
  const auto forward = [&](auto change, ErrorKind kind, const std::vector<std::string>& parts) {
    AttentionForward args = c.forward_args();
    change(args);
    EXPECT_TRUE(throws_error([&] { attention_forward(cpu, args, c.workspace(false, 1)); }, kind, parts));
  };
  forward([&](auto& a) { a.q = {}; }, shape, {"attention_forward: q must be (B, T, H, D) f32 or bf16", "got none"});
  forward([&](auto& a) { a.q = flat; }, shape, {"attention_forward: q must be (B, T, H, D)", "got (8, 18) f32"});
  forward([&](auto& a) { a.q = half; }, shape, {"k must be (B, S, H, D) bf16", "got (2, 5, 3, 6) f32"});
  forward([&](auto& a) { a.k = flat; }, shape, {"k must be (B, S, H, D) f32", "got (8, 18)"});
  forward([&](auto& a) { a.q = wide; }, shape, {"k must be (2, 5, 3, 7)"});
  forward([&](auto& a) { a.v = a.q; }, shape, {"v must be (2, 5, 3, 6) f32", "got (2, 4, 3, 6)"});
  forward([&](auto& a) { a.out = a.v; }, shape, {"out must be (2, 4, 3, 6) f32", "got (2, 5, 3, 6)"});
  forward([&](auto& a) { a.lse = a.q; }, shape, {"lse must be (2, 3, 4) f32", "got (2, 4, 3, 6)"});
  forward([&](auto& a) { a.mask.kind = MaskKind::kCausal; }, shape, {"as many queries as keys", "T=4 S=5"});
  forward([&](auto& a) { a.mask.kind = MaskKind::kCausalOpenFirst; }, shape, {"as many queries as keys", "T=4 S=5"});
  forward([&](auto& a) { a.mask.kind = MaskKind::kExplicit; }, shape,
          {"mask.allowed must be (2, 4, 5) u8", "got none"});
  const auto bytes = filled_tensor(DType::kU8, {2, 4, 5}, 1);
  forward([&](auto& a) { a.mask.allowed = bytes; }, shape, {"mask.allowed must be undefined", "got (2, 4, 5) u8"});
  const auto ints = [](const std::vector<double>& v) { return make_tensor(DType::kI32, {int64_t(v.size())}, v); };
  const auto three = ints({1, 2, 3}), long_ = ints({5, 6});
  forward([&](auto& a) { a.mask.lengths = three; }, shape, {"mask.lengths must be (2) i32", "got (3) i32"});
  forward([&](auto& a) { a.mask.open_lengths = three; }, shape, {"mask.open_lengths must be (2) i32", "got (3) i32"});
  forward([&](auto& a) { a.mask.open_lengths = long_; }, shape, {"mask.open_lengths must be undefined", "got (2) i32"});
  forward([&](auto& a) { a.stride_q = 17; }, argument, {"stride_q must be 0 or at least H*D = 18", "got 17"});
  forward([&](auto& a) { a.stride_k = 17; }, argument, {"stride_k must be 0 or at least H*D = 18", "got 17"});
  forward([&](auto& a) { a.stride_v = -18; }, argument, {"stride_v must be 0 or at least H*D = 18", "got -18"});
  EXPECT_TRUE(throws_error([&] { attention_forward(cpu_context(2), c.forward_args(), c.workspace(false, 1)); }, shape,
                           {"attention_forward: workspace must have at least", "for 2 threads", "got"}));
  const auto backward = [&](auto change, const std::vector<std::string>& parts) {
    AttentionBackward args = c.backward_args();
    change(args);
    EXPECT_TRUE(throws_error([&] { attention_backward(cpu, args, c.workspace(true, 1)); }, shape, parts));
  };
  backward([&](auto& a) { a.out = {}; }, {"attention_backward: out must be (2, 4, 3, 6) f32", "got none"});
  backward([&](auto& a) { a.lse = {}; }, {"lse must be (2, 3, 4) f32", "got none"});
  backward([&](auto& a) { a.dout = half; }, {"dout must be (2, 4, 3, 6) f32", "bf16"});
  backward([&](auto& a) { a.dq = a.k; }, {"dq must be (2, 4, 3, 6) f32"});
  backward([&](auto& a) { a.dk = a.q; }, {"dk must be (2, 5, 3, 6) f32"});
  backward([&](auto& a) { a.dv = half; }, {"dv must be (2, 5, 3, 6) f32"});
  Context cuda = cpu;
  cuda.device = Device::cuda(0);
  EXPECT_TRUE(
      throws_error([&] { attention_forward(cuda, c.forward_args(), {}); }, shape, {"q must be on device cuda:0"}));
}

}  // namespace
}  // namespace permafrost
