#include "parallel/group/host_staged_group.h"

#include "core/device/bytes.h"
#include "core/device/cuda.h"
#include "parallel/group/inproc_group.h"
#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::Others;
using testing::throws_error;

class HostStagedGroupTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    before_ = testing::used_device();
    testing::use_device(Device::cuda(0));
  }
  void TearDown() override {
    if (cuda::device_count() > 0) testing::use_device(before_);
  }
  /// body(group) on each rank, with staging for `bytes`.
  static void run(int ranks, int64_t bytes, const std::function<void(Group&)>& body) {
    run_inproc(ranks, [&](Group& host) {
      const Buffer staging = Buffer::pinned("staging", bytes, Device::cuda(0));
      body(*make_host_staged_group(host, Device::cuda(0), {staging.data(), DType::kU8, Shape{bytes}}));
    });
  }

 private:
  Device before_;
};

TEST_P(HostStagedGroupTest, Collectives) {
  run(GetParam(), 1 << 20, [](Group& group) { testing::check_collectives(group, Others::kTakePart); });
}
TEST_P(HostStagedGroupTest, Split) {
  run(GetParam(), 1 << 20, [](Group& group) { testing::check_split(group); });
}
TEST_P(HostStagedGroupTest, ArgumentErrors) {
  run(GetParam(), 1 << 20, [](Group& group) { testing::check_argument_errors(group); });
}

/// Device memory, which the host cannot reach, on a stream of the device, one call behind the other.
TEST_P(HostStagedGroupTest, ReducesAndGathersDeviceMemoryInTheOrderOfAStream) {
  const int ranks = GetParam();
  run(ranks, 8 * ranks, [&](Group& group) {
    Stream stream(Device::cuda(0));
    const Context context{.device = stream.device(), .pool = nullptr, .stream = stream};
    const Buffer memory("integers", 8 * ranks, stream.device());
    const Buffer host = Buffer::pinned("integers", 8 * ranks, stream.device());
    auto* values = reinterpret_cast<int64_t*>(host.data());
    for (int i = 0; i < ranks; ++i) values[i] = 100 * i + group.rank();
    copy_bytes(context, memory.data(), host.data(), host.bytes());
    const Tensor all(memory.data(), DType::kI64, Shape{ranks}, stream.device());
    const Tensor part = all.rows(group.rank(), group.rank() + 1);
    group.reduce_scatter(all, part, {}, ReduceOp::kSum, stream, "sums");
    group.all_gather(part, all, {}, stream, "slices");
    copy_bytes(context, host.data(), memory.data(), host.bytes());
    stream.synchronize();
    for (int i = 0; i < ranks; ++i) EXPECT_EQ(values[i], 100 * i * ranks + ranks * (ranks - 1) / 2);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, HostStagedGroupTest, ::testing::Values(1, 2, 3));

TEST_P(HostStagedGroupTest, Streams) {
  run(GetParam(), 1 << 20, [](Group& group) { testing::check_streams(group, Others::kTakePart); });
}
TEST_P(HostStagedGroupTest, PointToPoint) {
  run(GetParam(), 1 << 20, [](Group& group) { testing::check_point_to_point(group); });
}

TEST_P(HostStagedGroupTest, SaysWhatDoesNotFitAndWhichStreamItNeeds) {
  if (GetParam() == 1) return;  // nothing is staged
  run(GetParam(), 16, [](Group& group) {
    const testing::OwnedTensor values(DType::kI64, Shape{3});
    const Tensor all = values;
    EXPECT_TRUE(throws_error([&] { group.all_reduce(all, all, ReduceOp::kSum, StreamView::caller(), "too much"); },
                             ErrorKind::kInvalidArgument, {"all_reduce 'too much'", "16 bytes", "24"}));
    Stream cpu(Device::cpu());
    EXPECT_TRUE(throws_error([&] { group.all_reduce(all, all, ReduceOp::kSum, cpu, "elsewhere"); },
                             ErrorKind::kInvalidArgument, {"stream must be one of CUDA"}));
  });
}

}  // namespace
}  // namespace permafrost
