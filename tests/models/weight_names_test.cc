#include "models/weight_names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "core/weights/load_ranges.h"
#include "models/epalm/epalm.h"
#include "tests/models/support.h"
#include "tests/weights/scratch.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

EpalmConfig config_of(const std::string& text) {
  EpalmConfig config;
  config.vision = vit_config_of(Golden("epalm_vit_weights.safetensors"));
  config.text = opt_config_of(Golden(text + ".safetensors"));
  config.features = 3;
  config.start = 1;
  config.end = 5;
  config.prompt_length = 3;
  return config;
}

Graph graph_of(const EpalmConfig& config) { return build_epalm(config, DType::kF32, {2, 5, false}); }

/// A golden's tensors under changed names, and more of them, written as a file.
class Rewritten {
 public:
  using Rename = std::function<std::string(const std::string&)>;
  Rewritten(const std::string& golden, const Rename& rename, const std::map<std::string, Shape>& more = {}) {
    const SafetensorsReader reader(golden_path(golden));
    std::vector<TensorDeclaration> declarations;
    for (const StoredTensor& t : reader.tensors()) declarations.push_back({rename(t.name), {t.shape, *t.dtype}});
    for (const auto& [name, shape] : more) declarations.push_back({name, {shape, DType::kF32}});
    SafetensorsWriter writer(path(), declarations);
    for (const StoredTensor& t : reader.tensors()) writer.write(reader.read_all(t.name));
    for (const auto& [name, shape] : more)
      writer.write(std::vector<std::byte>(static_cast<size_t>(4 * shape.elements())));
    writer.finish();
  }
  std::string path() const { return folder_ / "model.safetensors"; }

 private:
  ScratchFolder folder_;
};

std::string same(const std::string& name) { return name; }

TEST(WeightNames, TimmFilesGiveEveryVisionParameter) {
  const Graph graph = graph_of(config_of("epalm_opt_pre_weights"));
  const PartWeights part = vision_weights(graph);
  const WeightSource source = WeightSource::open(golden_path("epalm_vit_weights.safetensors"));
  const LoadReport report = match_parameters(part.required, source, part.rules);
  EXPECT_EQ(report.matches.size(), source.tensors().size());
  ASSERT_EQ(part.params.size(), part.required.size());
  for (size_t i = 0; i < part.params.size(); ++i)
    EXPECT_EQ(graph.params()[static_cast<size_t>(part.params[i])].name, "vision." + part.required[i].name);

  const Rewritten with_head("epalm_vit_weights.safetensors", same, {{"head.weight", {10, 12}}, {"head.bias", {10}}});
  const WeightSource headed = WeightSource::open(with_head.path());
  EXPECT_EQ(match_parameters(part.required, headed, part.rules).unused.size(), 2u);
}

TEST(WeightNames, HuggingFaceFilesWithAndWithoutPrefixes) {
  for (const char* file : {"epalm_opt_pre_weights", "epalm_opt_post_weights"}) {
    const Graph graph = graph_of(config_of(file));
    const PartWeights part = text_weights(graph);
    const std::string golden = std::string(file) + ".safetensors";
    for (size_t cut : {size_t{0}, std::string("model.").size(), std::string("model.decoder.").size()}) {
      const Rewritten stored(golden, [&](const std::string& name) { return name.substr(cut); });
      const WeightSource source = WeightSource::open(stored.path());
      EXPECT_EQ(match_parameters(part.required, source, part.rules).matches.size(), source.tensors().size())
          << golden << ' ' << cut;
    }
  }
}

TEST(WeightNames, AStoredHeadMustEqualTheEmbedding) {
  const EpalmConfig config = config_of("epalm_opt_pre_weights");
  const PartWeights part = text_weights(graph_of(config));
  const Rewritten other("epalm_opt_pre_weights.safetensors", same,
                        {{"lm_head.weight", {config.text.vocab, config.text.hidden}}});
  const WeightSource source = WeightSource::open(other.path());
  const LoadReport report = match_parameters(part.required, source, part.rules);
  const auto embedding = std::ranges::find_if(report.matches, [](const auto& match) { return !match.aliases.empty(); });
  ASSERT_NE(embedding, report.matches.end());
  const int64_t elements = config.text.vocab * config.text.hidden;
  std::vector<std::byte> values(static_cast<size_t>(4 * elements));
  const ReadRange all{embedding->tensor, 0, elements, DType::kF32, values.data(), embedding->aliases};
  EXPECT_TRUE(throws_error(
      [&] {
        load_ranges(source, {&all, 1});
      },
      ErrorKind::kWeights, {"lm_head.weight", "embed_tokens.weight", "differ first in row 0"}));
}

TEST(WeightNames, EveryMissingExtraAndMisshapenTensorIsNamed) {
  const PartWeights part = text_weights(graph_of(config_of("epalm_opt_pre_weights")));
  const std::string missing = "model.decoder.layers.3.fc1.bias", misshapen = "model.decoder.layers.3.fc2.bias";
  const Rewritten wrong("epalm_opt_pre_weights.safetensors",
                        [&](const std::string& name) {
                          return name == missing ? "stranger" : name == misshapen ? "moved" : name;
                        },
                        {{"another", {2}}, {misshapen, {3}}});
  const WeightSource source = WeightSource::open(wrong.path());
  EXPECT_TRUE(throws_error(
      [&] { match_parameters(part.required, source, part.rules); }, ErrorKind::kWeights,
      {"5 problems", "missing: '" + missing + "' (", "misshapen: '" + misshapen + "' must be (16); got (3)",
       "extra: 'stranger' (", "extra: 'moved' (16)", "extra: 'another' (2)"}));
}

TEST(WeightNames, AdaptersHaveThePublishedNames) {
  const std::vector<std::string> variants{
      "main", "post", "pt", "lin", "lin_shared", "ada_mlp_normal", "ada_mlp_scaled_parallel", "ada_attn_parallel"};
  for (const std::string& variant : variants) {
    const Golden golden("epalm_" + variant + ".safetensors");
    EpalmConfig config = config_of(golden.text("text") + "_weights");
    config.shared_connector = golden.text("shared_connector") == "true";
    config.prompt_length = static_cast<int64_t>(golden.number("prompt_len"));
    config.prompt = config.prompt_length == 0             ? EpalmConfig::Prompt::kNone
                    : golden.text("prompt_mlp") == "true" ? EpalmConfig::Prompt::kMlp
                                                          : EpalmConfig::Prompt::kTable;
    if (variant.starts_with("ada")) config.adaptor = adaptor_config_of(golden);
    const Graph graph = graph_of(config);
    const PartWeights part = adapter_weights(graph, resolve_freezing(graph, epalm_freezing(config)));
    const WeightSource source = WeightSource::open(golden_path("epalm_" + variant + "_adapter.safetensors"));
    EXPECT_EQ(match_parameters(part.required, source, part.rules).matches.size(), source.tensors().size()) << variant;
  }
}

TEST(WeightNames, TrainableBackboneParametersBelongToTheAdapter) {
  const Graph graph = graph_of(config_of("epalm_opt_pre_weights"));
  const std::vector<bool> everything(graph.params().size(), true);
  EXPECT_EQ(adapter_weights(graph, everything).params.size(), graph.params().size());
  EXPECT_TRUE(throws_error([&] { adapter_weights(graph, {true}); }, ErrorKind::kInvalidArgument,
                           {"one flag per parameter", "got 1"}));
}

}  // namespace
}  // namespace permafrost
