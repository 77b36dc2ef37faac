// Greedy and beam search on a tiny OPT, token for token (tests/goldens/decoding.py): against transformers where lengths
// are those of generated tokens; where they are full, against the scorer of transformers 4.2x as that script has it.
#include <gtest/gtest.h>

#include <fstream>

#include "core/base/json.h"
#include "models/decoding/search.h"
#include "models/epalm/inputs.h"
#include "models/opt.h"
#include "tests/models/support.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

Json golden_cases() {
  std::ifstream file(golden_path("decoding.json"));
  return parse_json(file);
}

SearchConfig config_of_case(const Json& c) {
  SearchConfig config;
  config.beams = c["beams"].get<int64_t>();
  config.length_penalty = c["length_penalty"].get<double>();
  config.early_stopping = c["early_stopping"].get<bool>();
  config.min_new_tokens = c["min_new"].get<int64_t>();
  config.normalisation = c["normalisation"].get<std::string>() == "full" ? SearchConfig::Normalisation::kFull
                                                                         : SearchConfig::Normalisation::kGenerated;
  return config;
}

/// The golden OPT over whole texts, one row per text.
class TinyOpt {
 public:
  TinyOpt(int64_t rows, int64_t tokens) : weights_("decoding_weights.safetensors"), graph_(DType::kF32) {
    config = opt_config_of(weights_);
    const Shape shape{rows, tokens};
    const Value ids = graph_.input("input_ids", {shape, DType::kI32});
    const Value positions = graph_.input("position_ids", {shape, DType::kI32});
    build_opt(graph_, config, ids, positions, graph_.input("lengths", {{rows}, DType::kI32}));
    runner_ = std::make_unique<GraphRunner>(graph_, std::vector<bool>(graph_.params().size(), false));
    load_params(*runner_, "text.", weights_);
  }

  /// Logits behind the last token of each text.
  std::vector<float> next(const std::vector<std::vector<int32_t>>& texts) {
    const TextBatch batch = TextBatch::of(texts, std::ssize(texts), kOptPadId);
    const Tensor ids = runner_->input("input_ids");
    std::fill_n(ids.data<int32_t>(), ids.elements(), kOptPadId);
    std::vector<float> last;
    for (size_t r = 0; r < texts.size(); ++r) {
      std::ranges::copy(texts[r], ids.data<int32_t>() + static_cast<int64_t>(r) * ids.dim(1));
      runner_->input("lengths").data<int32_t>()[r] = batch.lengths[r];
    }
    fill_position_ids(batch.lengths, runner_->input("position_ids"));
    runner_->run();
    const Tensor logits = runner_->value("logits");
    for (size_t r = 0; r < texts.size(); ++r) {
      const float* row =
          logits.data<float>() + (static_cast<int64_t>(r) * ids.dim(1) + std::ssize(texts[r]) - 1) * config.vocab;
      last.insert(last.end(), row, row + config.vocab);
    }
    return last;
  }

  OptConfig config;

 private:
  Golden weights_;
  Graph graph_;
  std::unique_ptr<GraphRunner> runner_;
};

std::vector<FoundText> search_with_opt(const SearchConfig& config, const std::vector<std::vector<int32_t>>& prompts,
                                       int64_t max_new) {
  std::vector<std::vector<int32_t>> texts;
  for (const auto& prompt : prompts)
    for (int64_t b = 0; b < config.beams; ++b) texts.push_back(prompt);
  TinyOpt model(std::ssize(texts), std::ssize(prompts[0]) + max_new);
  std::vector<SearchPrompt> lengths;
  for (const auto& prompt : prompts) lengths.push_back({std::ssize(prompt), max_new});
  std::vector<float> logits;
  return search_texts(config, lengths, model.config.vocab,
                      [&](std::span<const int32_t> parents, std::span<const int32_t> tokens) -> std::span<const float> {
                        const auto before = texts;
                        for (size_t r = 0; r < parents.size(); ++r) {
                          texts[r] = before[static_cast<size_t>(parents[r])];
                          texts[r].push_back(tokens[r]);
                        }
                        logits = model.next(texts);
                        return logits;
                      });
}

TEST(SearchGolden, AgreesWithTransformersAndTheWrittenOutScorer) {
  const Json golden = golden_cases();
  const auto prompts = golden["prompts"].get<std::vector<std::vector<int32_t>>>();
  int ended = 0, beams_seen = 0;
  for (const Json& c : golden["cases"]) {
    const SearchConfig config = config_of_case(c);
    const auto max_new = c["max_new"].get<int64_t>();
    const std::vector<FoundText> found = search_with_opt(config, prompts, max_new);
    ASSERT_EQ(found.size(), c["texts"].size());
    const PathLength path = opt_path(TinyOpt(1, 1).config, std::ssize(prompts[0]) + max_new);
    for (size_t s = 0; s < found.size(); ++s) {
      const Json& want = c["texts"][s];
      SCOPED_TRACE(concat(c.dump().substr(0, 130), " prompt ", s));
      EXPECT_EQ(found[s].tokens, want["tokens"].get<std::vector<int32_t>>());
      EXPECT_EQ(found[s].ended, want["ended"].get<bool>());
      ended += found[s].ended;
      // Both sides compute in fp32. A log-probability moves by at most twice what a logit does; logits of this model
      // are below 8. So does a score as the sum of at most max_new of them, for penalties of 0 and up.
      const double each = 2 * 2 * model_tolerance(DType::kF32, path, {8.0}).absolute;
      const double sum = each * static_cast<double>(max_new);
      EXPECT_NEAR(found[s].log_probability, want["sum"].get<double>(), sum);
      if (want["score"].is_null()) continue;
      ++beams_seen;
      const double length = static_cast<double>(std::ssize(prompts[0]) + max_new);
      EXPECT_NEAR(found[s].score, want["score"].get<double>(),
                  sum * std::max(1.0, std::pow(length, -config.length_penalty)));
    }
  }
  EXPECT_GT(ended, 100);
  EXPECT_GT(beams_seen, 200);
}

}  // namespace
}  // namespace permafrost
