#pragma once
#include <gtest/gtest.h>

#include "core/device/cuda.h"
#include "core/kernels/vector_math.h"
#include "tests/support/compare.h"

namespace permafrost::testing {

/// Where a kernel is tested: one of its versions for CPUs, or a GPU.
enum class Target { kPortable, kAvx512, kAmx, kCuda };
/// For kernels whose versions for CPUs are not chosen by their caller.
inline constexpr Target kCpu = Target::kPortable;

/// Of a test body that runs on every target. Its tensors live on the target's device.
class KernelTest : public ::testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    before_ = used_device();
    if (on_cuda() && cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
    if (!on_cuda() && level() > simd_level()) GTEST_SKIP() << "this processor lacks " << to_string(level());
    use_device(on_cuda() ? Device::cuda(0) : Device::cpu());
  }
  void TearDown() override { use_device(before_); }

  static bool on_cuda() { return GetParam() == Target::kCuda; }
  /// Instructions of a CPU; means nothing on a GPU.
  static SimdLevel level() { return on_cuda() ? SimdLevel::kPortable : static_cast<SimdLevel>(GetParam()); }

 private:
  Device before_;
};

inline std::string target_name(const ::testing::TestParamInfo<Target>& info) {
  if (info.param == Target::kCuda) return "cuda";
  return std::string(to_string(static_cast<SimdLevel>(info.param)));
}

}  // namespace permafrost::testing
