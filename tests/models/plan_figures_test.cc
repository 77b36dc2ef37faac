// FLOPs and bytes of a whole published model against arithmetic on its sizes: ViT-B/16 with OPT-125M, prompts of 10
// vectors through an MLP, six connectors, text layers 5 to 10 with VIS.
#include <gtest/gtest.h>

#include <numeric>

#include "models/epalm/epalm.h"
#include "parallel/plan/plan.h"

namespace permafrost {
namespace {

constexpr int64_t kBatch = 16, kText = 64, kPrompt = 10, kFeatures = 6, kStart = 5, kLayers = 12;
constexpr int64_t kWidth = 768, kHidden = 3072, kPatches = 196, kImageTokens = 197, kPatchValues = 3 * 16 * 16;
constexpr int64_t kVocab = 50272, kPositions = 2050;

Plan published() {
  EpalmConfig config;
  config.text = OptConfig::of(OptSize::k125M);
  config.features = kFeatures;
  config.start = kStart;
  config.end = kStart + kFeatures;
  config.prompt_length = kPrompt;
  PlanRequest request;
  request.build_graph = [config](int64_t tokens) { return build_epalm(config, DType::kBF16, {kBatch, tokens, false}); };
  request.buckets = {16, kText};
  request.freezing = epalm_freezing(config);
  request.micro_batches = 3;
  return make_plan(request);
}

/// A product of (m, k) and (k, n).
double product(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

/// Scores and mixing, all heads together.
double attention_forward(int64_t tokens) { return 2 * product(kBatch * tokens, tokens, kWidth); }
/// Scores again, dV, d scores, dQ, dK.
double attention_backward(int64_t tokens) { return 5 * product(kBatch * tokens, tokens, kWidth); }

/// qkv, output, both of the MLP.
double block_linears(int64_t rows) {
  return product(rows, 3 * kWidth, kWidth) + product(rows, kWidth, kWidth) + 2 * product(rows, kHidden, kWidth);
}

int64_t text_tokens(int64_t layer) { return kPrompt + kText + (layer >= kStart ? 1 : 0); }

double products_forward() {
  double sum = product(kBatch * kPatches, kWidth, kPatchValues);
  for (int64_t block = 0; block + 1 < kLayers; ++block)
    sum += block_linears(kBatch * kImageTokens) + attention_forward(kImageTokens);
  // Of the last block the class token alone is used: behind the attention it is one row per image.
  sum += product(kBatch * kImageTokens, 3 * kWidth, kWidth) + attention_forward(kImageTokens) +
         product(kBatch, kWidth, kWidth) + 2 * product(kBatch, kHidden, kWidth);
  sum += kFeatures * product(kBatch, kWidth, kWidth);  // connectors
  sum += 2 * product(kPrompt, kWidth, kWidth);         // prompts, not one per sample
  for (int64_t layer = 0; layer < kLayers; ++layer)
    sum += block_linears(kBatch * text_tokens(layer)) + attention_forward(text_tokens(layer));
  return sum + product(kBatch * (kText - 1), kVocab, kWidth);
}

double products_backward() {
  double sum = product(kBatch * (kText - 1), kVocab, kWidth);  // frozen layers: dX alone, down to the prompts
  for (int64_t layer = 0; layer < kLayers; ++layer)
    sum += block_linears(kBatch * text_tokens(layer)) + attention_backward(text_tokens(layer));
  sum += 2 * 2 * product(kPrompt, kWidth, kWidth);           // both of the prompt MLP: dX and dW
  return sum + kFeatures * product(kBatch, kWidth, kWidth);  // connectors: dW alone, the vision model has no backward
}

TEST(PlanFigures, FlopsAreThoseOfTheProductsAndALittle) {
  const Plan plan = published();
  const Graph& graph = plan.graphs.back();
  double other_forward = 0, other_backward = 0;  // norms, activations, softmax of the loss: by element
  for (size_t o = 0; o < graph.ops().size(); ++o) {
    const OpInfo& op = graph.ops()[o];
    const std::string_view kind = op.op->kind();
    if (kind == "linear" || kind == "joined_linear" || kind.starts_with("attention")) continue;
    const OpFlops flops = op.op->flops(graph.specs_of(op));
    const Needs& needs = plan.needs.back().op_needs[o];
    if (kind == "head_loss") {  // a product and the softmax: the product counts as those of linear layers
      other_forward -= product(kBatch * (kText - 1), kVocab, kWidth);
      other_backward -= product(kBatch * (kText - 1), kVocab, kWidth);
    }
    other_forward += flops.forward;
    other_backward += (needs.inputs ? flops.backward_inputs : 0) + (needs.params ? flops.backward_params : 0);
  }
  // Sums of whole numbers below 2^53: exact in any order.
  EXPECT_EQ(plan.flops_forward() - other_forward, products_forward());
  EXPECT_EQ(plan.flops_backward() - other_backward, products_backward());
  EXPECT_GT(other_forward, 0);
  EXPECT_LT(other_forward, 0.01 * plan.flops_forward());
  EXPECT_LT(other_backward, 0.01 * plan.flops_backward());
}

TEST(PlanFigures, ParameterBytesAreThoseOfTheSizes) {
  // Matrices in bf16, vectors in f32; all of these sizes are multiples of the alignment.
  const int64_t block_matrices = 4 * kWidth * kWidth + 2 * kWidth * kHidden,
                block_vectors = 4 * kWidth + kHidden + kWidth + 4 * kWidth;
  const int64_t vision_matrices = kLayers * block_matrices + kWidth * kPatchValues + kImageTokens * kWidth + kWidth,
                vision_vectors = kLayers * block_vectors + kWidth + 2 * kWidth;
  const int64_t text_matrices = kLayers * block_matrices + kVocab * kWidth + kPositions * kWidth,
                text_vectors = kLayers * block_vectors + 2 * kWidth;
  const int64_t trained_matrices = (kFeatures + 2) * kWidth * kWidth + kPrompt * kWidth,
                trained_vectors = (kFeatures + 2) * kWidth;
  const Plan plan = published();
  EXPECT_EQ(plan.total_params,
            vision_matrices + vision_vectors + text_matrices + text_vectors + trained_matrices + trained_vectors);
  EXPECT_EQ(plan.trainable_params, trained_matrices + trained_vectors);
  const int64_t frozen = 2 * (vision_matrices + text_matrices) + 4 * (vision_vectors + text_vectors);
  EXPECT_EQ(std::accumulate(plan.frozen_units.begin(), plan.frozen_units.end(), int64_t{0},
                            [](int64_t sum, const FrozenUnit& unit) { return sum + unit.bytes; }),
            frozen);
  EXPECT_GE(plan.memory.node_frozen, frozen);
  EXPECT_LT(plan.memory.node_frozen, frozen + kFrozenBlock * std::ssize(plan.units)) << "units begin at pages";
  EXPECT_EQ(plan.memory.frozen, plan.memory.node_frozen) << "one rank";
  EXPECT_EQ(plan.memory.working, 2 * trained_matrices + 4 * trained_vectors);
  EXPECT_EQ(plan.memory.optimizer, 12 * plan.trainable_params);
  EXPECT_EQ(plan.memory.gradients, 4 * plan.trainable_params);
  EXPECT_EQ(plan.memory.sums, 8 * plan.trainable_params);
  int64_t units = 0;
  for (const UnitPlan& unit : plan.units) units += unit.weight_bytes;
  EXPECT_EQ(units, frozen + plan.memory.working);
}

}  // namespace
}  // namespace permafrost
