// quirks.frozen_dropout through the whole model: every use in the graph draws the mask that the reference draws.
#include <gtest/gtest.h>

#include <numeric>

#include "models/epalm/inputs.h"
#include "tests/models/support.h"
#include "tests/reference/dropout_ref.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

constexpr uint64_t kSeed = 11, kSamples[] = {70, 3};
constexpr uint32_t kEpoch = 2;

EpalmConfig dropout_config(const std::string& text) {
  EpalmConfig config;
  config.vision = vit_config_of(Golden("epalm_vit_weights.safetensors"));
  config.text = opt_config_of(Golden(text));
  config.features = 3;
  config.start = 1;
  config.end = 5;
  config.prompt_length = 3;
  config.frozen_dropout = true;
  return config;
}

/// Runs one micro-batch of two texts in a bucket of `tokens`.
void run_bucket(GraphRunner& runner, const EpalmConfig& config, int64_t tokens) {
  runner.initialise(5);
  const Shape pixels = runner.input("images").shape();
  std::vector<double> images(static_cast<size_t>(pixels.elements()));
  for (size_t i = 0; i < images.size(); ++i) images[i] = static_cast<double>(i % 17) / 8.0 - 1.0;
  runner.set_input("images", images);
  runner.set_input("random_address", {static_cast<double>(kSeed), kEpoch, static_cast<double>(kSamples[0]),
                                      static_cast<double>(kSamples[1])});
  std::vector<int32_t> text(static_cast<size_t>(tokens));
  std::iota(text.begin(), text.end(), 4);
  TextBatch batch = TextBatch::of({text, {9, 8, 7}}, 2, 1);
  label_all(batch);
  fill_epalm_inputs(config, batch, 1, 0.1f,
                    {runner.input("input_ids"), runner.input("position_ids"), runner.input("lengths_before"),
                     runner.input("lengths_after"), runner.value("open_lengths"), runner.input("labels"),
                     runner.input("row_weight")});
  runner.run();
}

void expect_masks(const std::string& text_weights, int64_t tokens) {
  const EpalmConfig config = dropout_config(text_weights);
  const Graph graph = build_epalm(config, DType::kF32, {2, tokens, false});
  GraphRunner runner(graph, resolve_freezing(graph, epalm_freezing(config)));
  run_bucket(runner, config, tokens);
  const auto value = [&](int index) {
    return values_of(runner.value(graph.values()[static_cast<size_t>(index)].name));
  };
  uint32_t use = 0;  // embeddings, then attention and feed-forward of every layer
  for (const OpInfo& op : graph.ops()) {
    if (op.op->kind() != "dropout") continue;
    const std::vector<double> x = value(op.inputs[0]), y = value(op.outputs[0]);
    const size_t elements = x.size() / 2;
    int64_t dropped = 0, wrong = 0;
    for (size_t b = 0; b < 2; ++b) {
      const std::vector<double> factors =
          reference::dropout_factors(kSeed, kEpoch, kSamples[b], use, config.text.dropout, elements);
      for (size_t e = 0; e < elements; ++e) {
        const double want = x[b * elements + e] * factors[e], got = y[b * elements + e];
        dropped += factors[e] == 0;
        wrong += !(std::abs(got - want) <= 1e-6 * std::abs(want));
      }
    }
    EXPECT_EQ(wrong, 0) << "use " << use << " of " << 2 * elements;
    const double share = static_cast<double>(dropped) / static_cast<double>(2 * elements);
    EXPECT_NEAR(share, config.text.dropout, 5 * std::sqrt(0.09 / static_cast<double>(2 * elements))) << "use " << use;
    ++use;
  }
  EXPECT_EQ(use, 1 + 2 * config.text.layers) << text_weights;
}

TEST(FrozenDropout, DrawsTheMasksOfTheReferenceInEveryBucket) {
  for (const char* text : {"epalm_opt_pre_weights.safetensors", "epalm_opt_post_weights.safetensors"})
    for (const int64_t tokens : {6, 11}) expect_masks(text, tokens);
}

TEST(FrozenDropout, IsAbsentWithoutTheQuirk) {
  EpalmConfig config = dropout_config("epalm_opt_pre_weights.safetensors");
  config.frozen_dropout = false;
  const Graph graph = build_epalm(config, DType::kF32, {2, 6, false});
  for (const OpInfo& op : graph.ops()) EXPECT_NE(op.op->kind(), "dropout");
}

}  // namespace
}  // namespace permafrost
