// Norm and clipping against torch.nn.utils.clip_grad_norm_.
#include <gtest/gtest.h>

#include "core/kernels/order_free.h"
#include "parallel/group/inproc_group.h"
#include "parallel/reduce/global_norm.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"

namespace permafrost {
namespace {

using testing::Golden;

TEST(Clip, AgreesWithGoldens) {
  const Golden golden("clip.safetensors");
  int checked = 0;
  for (const std::string& name : golden.cases()) {
    std::vector<double> gradients, clipped;  // of all tensors, as they lie in the trainable space
    for (int64_t i = 0; i < static_cast<int64_t>(golden.number(name + ".tensors")); ++i) {
      for (double g : golden.values(concat(name, ".grad.", i))) gradients.push_back(g);
      for (double g : golden.values(concat(name, ".clipped.", i))) clipped.push_back(g);
    }
    const auto elements = static_cast<int64_t>(gradients.size());
    const testing::OwnedTensor slice = testing::make_tensor(DType::kF32, {elements}, gradients);
    const ShardSpec shards(elements, 1);
    const testing::OwnedTensor blocks =
        testing::make_tensor(DType::kF64, {shards.blocks()}, std::vector<double>(static_cast<size_t>(shards.blocks())));
    const auto alone = make_solo_group();
    const testing::OwnedTensor norm_of(DType::kF64, {1}), clip(DType::kF32, {1}), apply(DType::kI32, {1});
    global_norm(testing::cpu_context(), *alone, shards, slice, blocks, golden.number(name + ".max_norm"),
                {norm_of, clip, apply});
    const double norm = *norm_of.view().data<double>(), scale = static_cast<double>(*clip.view().data<float>());
    EXPECT_EQ(*apply.view().data<int32_t>(), 1);
    const double want_norm = golden.values(name + ".norm")[0], want_scale = golden.values(name + ".scale")[0];
    EXPECT_NEAR(norm, want_norm, 1e-7 * want_norm) << name;  // stored in f32
    EXPECT_NEAR(scale, want_scale, 1e-7 * want_scale) << name;
    ASSERT_EQ(clipped.size(), gradients.size()) << name;
    for (size_t i = 0; i < gradients.size(); ++i)
      EXPECT_NEAR(gradients[i] * scale, clipped[i], 3e-7 * std::abs(clipped[i])) << name << ' ' << i;
    ++checked;
  }
  EXPECT_EQ(checked, 5);
}

}  // namespace
}  // namespace permafrost
