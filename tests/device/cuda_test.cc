#include "core/device/cuda.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/stream.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

class CudaDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  }
};

TEST_F(CudaDevice, SaysWhatItIs) {
  const cuda::DeviceInfo info = cuda::device_info(0);
  EXPECT_FALSE(info.name.empty());
  EXPECT_GE(info.major, 8);
  EXPECT_GT(info.processors, 0);
  EXPECT_GT(info.memory_bytes, 0);
  EXPECT_LE(info.free_bytes, info.memory_bytes);
  EXPECT_GE(info.shared_bytes, 48 << 10);
  EXPECT_EQ(cuda::why_unavailable(), "");
  EXPECT_TRUE(throws_error([] { cuda::device_info(1000); }, ErrorKind::kInvalidArgument,
                           {"device: index must lie in 0..", "got cuda:1000"}));
}

TEST_F(CudaDevice, BufferIsZeroAndAlignedAndGivenBack) {
  { const Buffer first("what the driver keeps is taken by then", 1, Device::cuda(0)); }
  const int64_t before = cuda::device_info(0).free_bytes;
  {
    Buffer memory("arena", 64 << 20, Device::cuda(0));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % 256, 0u);
    EXPECT_EQ(memory.device(), Device::cuda(0));
    EXPECT_LE(cuda::device_info(0).free_bytes, before - (64 << 20));
    std::vector<std::byte> read(64 << 20, std::byte{1});
    Stream stream(Device::cuda(0));
    cuda::copy(*stream.queue(), read.data(), memory.data(), memory.bytes());
    stream.synchronize();
    EXPECT_EQ(std::ranges::count(read, std::byte{0}), memory.bytes());
    Buffer other = std::move(memory);
    EXPECT_EQ(memory.data(), nullptr);  // NOLINT: that is what is tested
    EXPECT_NE(other.data(), nullptr);
  }
  EXPECT_GE(cuda::device_info(0).free_bytes, before - (32 << 20));  // a stream and kernels that were loaded stay
}

TEST_F(CudaDevice, HostCannotReachDeviceMemory) {
  const Buffer memory("arena", 4096, Device::cuda(0));
  EXPECT_DEATH(std::memset(memory.data(), 1, 1), "");  // so that a host loop over a tensor of the device shows at once
}

TEST_F(CudaDevice, BufferNamesWhatDidNotFit) {
  EXPECT_TRUE(throws_error([] { Buffer("arena", int64_t{1} << 50, Device::cuda(0)); }, ErrorKind::kStorage,
                           {"Buffer arena", "must have 1125899906842624 bytes", "free of"}));
  EXPECT_NO_THROW(Buffer("arena", 1024, Device::cuda(0)));  // the failure is over
}

TEST_F(CudaDevice, PinnedMemoryIsTheHostsToo) {
  Buffer memory = Buffer::pinned("staging", 1000, Device::cuda(0));
  EXPECT_EQ(memory.bytes(), 1000);
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(memory.data()[i], std::byte{0}) << i;
  memory.data()[999] = std::byte{7};
  Buffer device("arena", 1000, Device::cuda(0));
  Stream stream(Device::cuda(0));
  cuda::copy(*stream.queue(), device.data(), memory.data(), 1000);
  cuda::fill(*stream.queue(), device.data(), 3, 10);
  cuda::copy(*stream.queue(), memory.data(), device.data(), 1000);
  stream.synchronize();
  EXPECT_EQ(memory.data()[0], std::byte{3});
  EXPECT_EQ(memory.data()[10], std::byte{0});
  EXPECT_EQ(memory.data()[999], std::byte{7});
}

TEST_F(CudaDevice, EventsComplete) {
  Stream stream(Device::cuda(0));
  Buffer memory = Buffer::pinned("staging", 4, Device::cuda(0));
  const Event event = stream.submit([&] { cuda::fill(*stream.queue(), memory.data(), 9, 4); });
  event.wait();
  EXPECT_TRUE(event.done());
  EXPECT_EQ(memory.data()[3], std::byte{9});
  EXPECT_THROW(stream.submit([] { throw std::runtime_error("task"); }), std::runtime_error);
}

TEST_F(CudaDevice, PinnedOnCpuIsOrdinaryMemory) {
  const Buffer memory = Buffer::pinned("staging", 100, Device::cpu());
  EXPECT_EQ(memory.device(), Device::cpu());
  EXPECT_EQ(memory.bytes(), 100);
}

}  // namespace
}  // namespace permafrost::testing
