#include "launch/training/device_time.h"

#include <gtest/gtest.h>

#include "core/device/buffer.h"
#include "core/device/stream.h"

namespace permafrost {
namespace {

TEST(DeviceTime, IsNothingOnACpu) {
  DeviceTime time(nullptr);
  time.begin();
  time.end();
  EXPECT_EQ(time.take(), 0);
}

TEST(DeviceTime, AddsItsStretchesUpAndBeginsAnew) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  Stream stream(Device::cuda(0));
  const Buffer memory("filled", int64_t{1} << 20, stream.device());
  DeviceTime time(stream.queue());
  const auto stretch = [&] {
    time.begin();
    cuda::fill(*stream.queue(), memory.data(), 0, memory.bytes());
    time.end();
  };
  stretch();
  stream.synchronize();
  EXPECT_GT(time.take(), 0);
  stretch();
  stretch();
  stream.synchronize();
  EXPECT_GT(time.take(), 0);
  EXPECT_EQ(time.take(), 0) << "of stretches since the last call alone";
}

}  // namespace
}  // namespace permafrost
