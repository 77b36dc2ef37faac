#include "core/kernels/patchify.h"

#include <cmath>

#include "tests/kernels/dtypes.h"
#include "tests/reference/patchify_ref.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class PatchifyTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, PatchifyTest, ::testing::Values(kCpu, Target::kCuda), target_name);

Shape image_shape(const reference::ImageSize& s) {
  const auto n = [](size_t value) { return static_cast<int64_t>(value); };
  return {n(s.batch), n(s.channels), n(s.height), n(s.width)};
}

Shape patch_shape(const reference::ImageSize& s) {
  return {static_cast<int64_t>(s.batch * (s.height / s.patch) * (s.width / s.patch)),
          static_cast<int64_t>(s.channels * s.patch * s.patch)};
}

constexpr reference::ImageSize kSizes[] = {{1, 1, 1, 1, 1},    {2, 3, 4, 6, 2},    {3, 3, 21, 14, 7},
                                           {2, 5, 32, 16, 16}, {1, 2, 51, 34, 17}, {2, 1, 3, 5, 1}};

TEST_P(PatchifyTest, TinyByHand) {
  const auto images = make_tensor(DType::kF32, {1, 2, 2, 4}, {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17});
  OwnedTensor patches(DType::kF32, {2, 8});
  patchify_forward(device_context(), images, 2, patches);
  EXPECT_TRUE(all_close(patches, {0, 1, 4, 5, 10, 11, 14, 15, 2, 3, 6, 7, 12, 13, 16, 17}, {}));
}

TEST_P(PatchifyTest, ForwardAndBackwardMoveEveryPixel) {
  for (const auto& size : kSizes)
    for (DType dtype : tested_dtypes()) {
      const auto images = random_tensor(DType::kF32, image_shape(size), 1);
      auto patches = filled_tensor(dtype, patch_shape(size), 0xff);
      patchify_forward(device_context(2), images, static_cast<int64_t>(size.patch), patches);
      EXPECT_TRUE(
          same_bits(patches, make_tensor(dtype, patch_shape(size), reference::patchify(values_of(images), size))));
      EXPECT_TRUE(patches.canaries_intact());

      const auto dpatches = random_tensor(dtype, patch_shape(size), 2);
      std::vector<double> want = reference::patchify_gradient(values_of(dpatches), size);
      auto dimages = filled_tensor(DType::kF32, image_shape(size), 0xff);
      patchify_backward(device_context(2), dpatches, static_cast<int64_t>(size.patch), dimages, GradMode::kOverwrite);
      EXPECT_TRUE(all_close(dimages, want, {}));
      patchify_backward(device_context(2), dpatches, static_cast<int64_t>(size.patch), dimages, GradMode::kAdd);
      for (double& value : want) value *= 2;
      EXPECT_TRUE(all_close(dimages, want, {}));
      EXPECT_TRUE(dimages.canaries_intact());
    }
}

TEST(Patchify, GradientFormulaAgreesWithDuals) {
  const reference::ImageSize size{1, 2, 4, 6, 2};
  const auto images = values_of(random_tensor(DType::kF64, image_shape(size), 1));
  const auto cotangent = values_of(random_tensor(DType::kF64, patch_shape(size), 2));
  EXPECT_TRUE(gradient_agrees(
      reference::patchify_gradient(cotangent, size), [&](const auto& x) { return reference::patchify(x, size); },
      images, cotangent));
}

TEST_P(PatchifyTest, SameBitsForAnyNumberOfThreads) {
  const auto images = random_tensor(DType::kF32, {3, 3, 48, 32}, 1);
  std::vector<OwnedTensor> outs, gradients;
  for (int threads : {1, 2, 3}) {
    outs.push_back(filled_tensor(DType::kBF16, {18, 768}, 0));
    gradients.push_back(random_tensor(DType::kF32, {3, 3, 48, 32}, 3));
    patchify_forward(device_context(threads), images, 16, outs.back());
    patchify_backward(device_context(threads), outs.back(), 16, gradients.back(), GradMode::kAdd);
    EXPECT_TRUE(same_bits(outs.back(), outs.front()));
    EXPECT_TRUE(same_bits(gradients.back(), gradients.front()));
  }
}

TEST_P(PatchifyTest, EmptyAndNan) {
  patchify_forward(device_context(), OwnedTensor(DType::kF32, {0, 3, 4, 4}), 2, OwnedTensor(DType::kF32, {0, 12}));
  patchify_forward(device_context(), OwnedTensor(DType::kF32, {2, 3, 0, 4}), 2, OwnedTensor(DType::kF32, {0, 12}));
  OwnedTensor patches(DType::kBF16, {1, 4});
  patchify_forward(device_context(), make_tensor(DType::kF32, {1, 1, 2, 2}, {1, 2, NAN, 4}), 2, patches);
  EXPECT_TRUE(std::isnan(values_of(patches)[2]));
}

TEST_P(PatchifyTest, Errors) {
  const Context c = device_context();
  const OwnedTensor images(DType::kF32, {2, 3, 4, 6}), patches(DType::kF32, {12, 12});
  const auto call = [&](Tensor i, int64_t p, Tensor o) { return [=] { patchify_forward(c, i, p, o); }; };
  const auto shape = ErrorKind::kShapeMismatch;
  const std::string dtypes = on_cuda() ? " f32, bf16 or f16" : " f32 or bf16";
  EXPECT_TRUE(throws_error(call(images, 0, patches), ErrorKind::kInvalidArgument,
                           {"patchify_forward: patch size must be at least 1; got 0"}));
  EXPECT_TRUE(throws_error(call(images, 4, patches), shape,
                           {"height and width of images must be multiples of patch 4; got (2, 3, 4, 6) f32"}));
  EXPECT_TRUE(throws_error(call(OwnedTensor(DType::kU8, {2, 3, 4, 6}), 2, patches), shape,
                           {concat("images must be (B, C, H, W)", dtypes, "; got (2, 3, 4, 6) u8")}));
  EXPECT_TRUE(throws_error(call(images, 2, OwnedTensor(DType::kF32, {12, 11})), shape,
                           {concat("patches must be (12, 12)", dtypes, "; got (12, 11) f32")}));
  EXPECT_TRUE(throws_error([&] { patchify_backward(c, patches, 2, Tensor(), GradMode::kAdd); }, shape,
                           {concat("patchify_backward: dimages must be (B, C, H, W)", dtypes, "; got none")}));
}

}  // namespace
}  // namespace permafrost
