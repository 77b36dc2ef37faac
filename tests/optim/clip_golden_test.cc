// Norm and clipping against torch.nn.utils.clip_grad_norm_.
#include <gtest/gtest.h>

#include "core/kernels/order_free.h"
#include "optim/sharded_adamw.h"
#include "parallel/group/inproc_group.h"
#include "parallel/reduce/global_norm.h"
#include "tests/support/compare.h"
#include "tests/support/golden.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using testing::Golden;

double clip_scale(double max_norm, double norm) {
  PlanRequest request;
  request.build_graph = [](int64_t) { return testing::toy_transformer({}); };
  request.buckets = {5};
  request.freezing = {{"*", true}};
  AdamwConfig config;
  config.clip_norm = max_norm;
  return ShardedAdamw(make_plan(request), 0, config).clip_scale(norm);
}

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
    const double norm = global_norm(testing::cpu_context(), *alone, shards, slice, blocks);
    const double want_norm = golden.values(name + ".norm")[0], want_scale = golden.values(name + ".scale")[0];
    EXPECT_NEAR(norm, want_norm, 1e-7 * want_norm) << name;  // stored in f32
    const double scale = clip_scale(golden.number(name + ".max_norm"), norm);
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
