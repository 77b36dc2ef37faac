#include "parallel/group/nccl/nccl_group.h"

#include <cmath>
#include <limits>
#include <thread>

#include "core/device/cuda.h"
#include "tests/group/conformance.h"
#include "tests/group/nccl_test_ranks.h"

namespace permafrost::testing {
namespace {

class NcclConformance : public EmulatedNccl, public ::testing::WithParamInterface<int> {
 protected:
  static void run(const std::function<void(Group&)>& body, int64_t workspace_bytes = int64_t{64} << 10) {
    NcclOptions options;
    options.workspace_bytes = workspace_bytes;
    run_nccl(
        GetParam(), [&](NcclGroup& group, Stream&) { body(group); }, options);
  }
};

TEST_P(NcclConformance, Collectives) {
  run([](Group& group) { check_collectives(group, Others::kTakePart); });
}
TEST_P(NcclConformance, CollectivesThroughASmallWorkspace) {
  run([](Group& group) { check_collectives(group, Others::kTakePart); }, 3 * 1024);
}
TEST_P(NcclConformance, Streams) {
  run([](Group& group) { check_streams(group, Others::kTakePart); });
}
TEST_P(NcclConformance, PointToPoint) { run(check_point_to_point); }
TEST_P(NcclConformance, Split) { run(check_split); }
TEST_P(NcclConformance, ArgumentErrors) { run(check_argument_errors); }
TEST_P(NcclConformance, MovedBytes) {
  std::vector<MovedBytes> moved(static_cast<size_t>(GetParam()));
  run_inproc(GetParam(), [&](Group& host_group) {
    Stream stream(Device::cuda(0));
    MovedBytes& own = moved[static_cast<size_t>(host_group.rank())];
    NcclOptions options;
    options.facts = facts_of_rank(host_group.rank());
    options.moved = &own;
    const auto group = make_nccl_group(host_group, stream, options);
    check_moved_bytes(*group, own, MovedClosedForm::kFlat);
    const auto again = group->split(0, group->rank(), "same order", Waiting::kEager);
    check_moved_bytes(*again, own, MovedClosedForm::kFlat);
  });
}
INSTANTIATE_TEST_SUITE_P(Ranks, NcclConformance, ::testing::Values(1, 2, 3, 4));

class NcclGroupTest : public EmulatedNccl {};

TEST_F(NcclGroupTest, FloatSumsAreInRankOrder) {
  // (1e8 + 1) - 1e8 and 1e8 - 1e8 + 1 differ in f32: the order is visible, and must be 0, 1, 2 on every rank.
  const double values[3] = {1e8, 1, -1e8};
  NcclOptions options;
  options.workspace_bytes = 64;  // 8 elements of each at once
  run_nccl(
      3,
      [&](NcclGroup& group, Stream& stream) {
        const OwnedTensor x = make_tensor(DType::kF32, Shape({70}), std::vector<double>(70, values[group.rank()]));
        group.all_reduce(x, x, ReduceOp::kSum, stream, "order").wait();
        for (const double v : values_of(x)) EXPECT_EQ(v, static_cast<double>((1e8f + 1.0f) - 1e8f));
      },
      options);
}

TEST_F(NcclGroupTest, NaNOfAnyRankWinsMaximumAndMinimum) {
  run_nccl(3, [](NcclGroup& group, Stream& stream) {
    for (int bad = 0; bad < 3; ++bad)
      for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin}) {
        const double mine = group.rank() == bad ? std::numeric_limits<double>::quiet_NaN() : group.rank();
        const OwnedTensor x = make_tensor(DType::kF64, Shape({5}), std::vector<double>(5, mine));
        group.all_reduce(x, x, op, stream, "nan").wait();
        for (const double v : values_of(x)) EXPECT_TRUE(std::isnan(v));
      }
  });
}

TEST_F(NcclGroupTest, IntegerSumsWrap) {
  run_nccl(2, [](NcclGroup& group, Stream& stream) {
    const OwnedTensor x(DType::kI64, Shape({1}));
    *x.view().data<int64_t>() = std::numeric_limits<int64_t>::max();
    group.all_reduce(x, x, ReduceOp::kSum, stream, "wrap").wait();
    EXPECT_EQ(*x.view().data<int64_t>(), -2);
  });
}

TEST_F(NcclGroupTest, EqualPartsAreOneAllGatherAndUnevenOnesOneBroadcastPerPart) {
  const auto calls_of = [](const std::vector<int64_t>& counts) {
    const int gathers = nccl_emulation::calls("AllGather"), broadcasts = nccl_emulation::calls("Broadcast");
    run_nccl(2, [&](NcclGroup& group, Stream& stream) {
      const OwnedTensor all(DType::kU8, Shape({counts[0] + counts[1]}));
      const OwnedTensor part(DType::kU8, Shape({counts[static_cast<size_t>(group.rank())]}));
      group.all_gather(part, all, counts, stream, "gather").wait();
    });
    return std::pair(nccl_emulation::calls("AllGather") - gathers, nccl_emulation::calls("Broadcast") - broadcasts);
  };
  EXPECT_EQ(calls_of({8, 8}), std::pair(2, 0));  // on two ranks
  EXPECT_EQ(calls_of({8, 9}), std::pair(0, 4));
  EXPECT_EQ(calls_of({0, 9}), std::pair(0, 2));
  EXPECT_EQ(calls_of({0, 0}), std::pair(0, 0));
}

TEST_F(NcclGroupTest, WorksOnMemoryOfTheDevice) {
  run_nccl(2, [](NcclGroup& group, Stream& stream) {
    constexpr int64_t kElements = 1000;
    const Buffer memory("device", kElements * 8, Device::cuda(0));
    const Tensor x(memory.data(), DType::kI64, Shape({kElements}), Device::cuda(0));
    std::vector<int64_t> values(kElements, group.rank() + 1);
    cuda::copy(*stream.queue(), x.raw(), values.data(), x.bytes());
    group.all_reduce(x, x, ReduceOp::kSum, stream, "sum");
    group.all_reduce(x, x, ReduceOp::kSum, stream, "again");
    cuda::copy(*stream.queue(), values.data(), x.raw(), x.bytes());  // behind both, on the same stream
    stream.synchronize();
    for (const int64_t v : values) EXPECT_EQ(v, 6);
  });
}

TEST_F(NcclGroupTest, ManyCallsAheadOfASlowRank) {
  run_nccl(2, [](NcclGroup& group, Stream& stream) {
    if (group.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    const OwnedTensor x = make_tensor(DType::kI32, Shape({1}), {0});
    const OwnedTensor one = make_tensor(DType::kI32, Shape({1}), {1});
    Event last;
    for (int i = 0; i < 300; ++i) last = group.all_reduce(one, x, ReduceOp::kSum, stream, "ahead");
    last.wait();
    EXPECT_EQ(values_of(x), std::vector<double>{2});
  });
}

TEST_F(NcclGroupTest, RefusesTensorsAndStreamsOfOtherDevices) {
  run_nccl(2, [](NcclGroup& group, Stream&) {
    float x = 0;
    const Tensor host = flat(std::span(&x, 1));
    EXPECT_TRUE(throws_error([&] { group.broadcast(host, 0, kHere, "t"); }, ErrorKind::kShapeMismatch,
                             {"broadcast 't': tensors must be on cuda:0; got one on the CPU"}));
    Stream cpu(Device::cpu());
    EXPECT_TRUE(throws_error([&] { group.barrier(cpu, "t"); }, ErrorKind::kInvalidArgument,
                             {"the stream must be of cuda:0; got one of the CPU"}));
    EXPECT_FALSE(group.async_error().has_value());
  });
  Stream cpu(Device::cpu());
  const auto solo = make_solo_group();
  EXPECT_TRUE(throws_error([&] { make_nccl_group(*solo, cpu); }, ErrorKind::kInvalidArgument,
                           {"nccl 'nccl'", "of a CUDA device; got one of the CPU"}));
}

TEST_F(NcclGroupTest, WithoutAWorkspaceFloatingReductionsAreRefusedAndIntegersAreNot) {
  NcclOptions options;
  options.workspace_bytes = 0;
  run_nccl(
      3,
      [](NcclGroup& group, Stream& stream) {
        const OwnedTensor x = make_tensor(DType::kF32, Shape({3}), {1, 2, 3});
        const auto parts = {"all_reduce 'x'", "at least 32 bytes", "workspace_bytes", "got 0 bytes and f32"};
        EXPECT_TRUE(throws_error([&] { group.all_reduce(x, x, ReduceOp::kSum, stream, "x"); }, ErrorKind::kNotBuilt,
                                 std::vector<std::string>(parts.begin(), parts.end())));
        const OwnedTensor i = make_tensor(DType::kI32, Shape({1}), {1});
        group.all_reduce(i, i, ReduceOp::kSum, stream, "i").wait();
        EXPECT_EQ(values_of(i), std::vector<double>{3});
      },
      options);
  options.workspace_bytes = -1;
  EXPECT_TRUE(throws_error(
      [&] {
        run_nccl(
            1, [](NcclGroup&, Stream&) {}, options);
      },
      ErrorKind::kInvalidArgument, {"workspace_bytes must not be negative; got -1"}));
}

TEST_F(NcclGroupTest, RegistersMemoryAndSaysSo) {
  run_nccl(2, [](NcclGroup& group, Stream& stream) {
    EXPECT_NE(group.describe().find("nccl 'nccl': 2 ranks, NCCL 2.28.9 (linked in)"), std::string::npos);
    EXPECT_NE(group.describe().find("no memory registered"), std::string::npos) << group.describe();
    const Buffer arena = nccl_memory("arena", 3 << 20, Device::cuda(0));
    group.register_memory(arena.data(), arena.bytes());
    EXPECT_NE(group.describe().find("registered 3.0 MiB in 1 window"), std::string::npos) << group.describe();
    const Tensor x(arena.data(), DType::kI32, Shape({16}), Device::cuda(0));
    group.all_reduce(x, x, ReduceOp::kSum, stream, "registered").wait();
    const Buffer other("other", 4096, Device::cuda(0));
    EXPECT_TRUE(throws_error([&] { group.register_memory(other.data(), other.bytes()); }, ErrorKind::kInvalidArgument,
                             {"must come from nccl_memory; got 4096 bytes"}));
    EXPECT_TRUE(throws_error([&] { group.register_memory(arena.data(), arena.bytes() + 1); },
                             ErrorKind::kInvalidArgument, {"must come from nccl_memory"}));
    EXPECT_TRUE(throws_error([&] { group.register_memory(arena.data(), 4096 * (1 + group.rank())); },
                             ErrorKind::kInvalidArgument,
                             {"must register as much; got 4096 bytes on rank 0 and 8192 on rank 1"}));
    EXPECT_FALSE(group.async_error().has_value());
  });
}

TEST_F(NcclGroupTest, SaysThatNothingWasRegistered) {
  nccl_emulation::set({.no_windows = true});
  run_nccl(2, [](NcclGroup& group, Stream&) {
    const Buffer arena = nccl_memory("arena", 4096, Device::cuda(0));
    group.register_memory(arena.data(), arena.bytes());
    EXPECT_NE(group.describe().find("no memory registered; not registered: NCCL offers no windows here"),
              std::string::npos)
        << group.describe();
  });
  run_nccl(1, [](NcclGroup& group, Stream&) {
    const Buffer arena = nccl_memory("arena", 4096, Device::cuda(0));
    group.register_memory(arena.data(), arena.bytes());
    EXPECT_NE(group.describe().find("one rank needs it not"), std::string::npos) << group.describe();
  });
}

TEST_F(NcclGroupTest, MemoryIsZeroAndNamedWhenItDoesNotFit) {
  Stream stream(Device::cuda(0));
  const Buffer memory = nccl_memory("arena", 5000, Device::cuda(0));
  EXPECT_EQ(memory.device(), Device::cuda(0));
  std::vector<std::byte> read(5000, std::byte{1});
  cuda::copy(*stream.queue(), read.data(), memory.data(), 5000);
  for (const std::byte b : read) EXPECT_EQ(b, std::byte{0});
  EXPECT_TRUE(throws_error([] { nccl_memory("arena", int64_t{1} << 50, Device::cuda(0)); }, ErrorKind::kStorage,
                           {"Buffer arena: NCCL must allocate 1125899906842624 bytes", "MiB free"}));
}

}  // namespace
}  // namespace permafrost::testing
