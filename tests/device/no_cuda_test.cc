#include "core/device/buffer.h"
#include "core/device/cuda.h"
#include "core/device/stream.h"
#include "core/kernels/activation.h"
#include "core/kernels/shape_ops.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(NoCuda, SaysWhatIsMissing) {
  EXPECT_FALSE(cuda::built());
  EXPECT_EQ(cuda::device_count(), 0);
  EXPECT_NE(cuda::why_unavailable().find("preset cuda"), std::string::npos);
  const std::vector<std::string> parts{"no CUDA backend", "preset cuda"};
  const auto kind = ErrorKind::kNotBuilt;
  EXPECT_TRUE(throws_error([] { Buffer("arena", 1, Device::cuda(0)); }, kind, {"Buffer arena", "preset cuda"}));
  EXPECT_TRUE(throws_error([] { Buffer::pinned("arena", 1, Device::cuda(0)); }, kind, {"Buffer arena", "preset cuda"}));
  EXPECT_TRUE(throws_error([] { Stream stream(Device::cuda(1)); }, kind, parts));
  EXPECT_TRUE(throws_error([] { cuda::device_info(0); }, kind, parts));
  EXPECT_TRUE(throws_error([] { cuda::runtime_version(); }, kind, parts));
}

TEST(NoCuda, KernelsRefuseItsContexts) {
  Context context;
  context.device = Device::cuda(1);
  float number = 0;
  const Tensor there(&number, DType::kF32, {1}, context.device);
  EXPECT_TRUE(throws_error([&] { activation_forward(context, Activation::kGelu, there, there); }, ErrorKind::kNotBuilt,
                           {"activation_forward: device must be cpu in a build without CUDA; got cuda:1"}));
  EXPECT_TRUE(throws_error([&] { add_forward(context, there, there, there); }, ErrorKind::kNotBuilt, {"add: device"}));
}

}  // namespace
}  // namespace permafrost::testing
