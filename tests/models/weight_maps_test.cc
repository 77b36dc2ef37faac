#include "models/weight_maps.h"

#include <algorithm>

#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::string archive(const std::string& name) { return golden_path("weight_files/" + name); }

std::vector<std::byte> values(const WeightSource& source, const RewrittenTensor& tensor, DType to) {
  std::vector<std::byte> bytes;
  rewrite(source, tensor, to,
          [&](std::span<const std::byte> data) { bytes.insert(bytes.end(), data.begin(), data.end()); });
  return bytes;
}

/// Every tensor of the map is that of the goldens under `prefix`, and there are `count`.
void expect_golden(const WeightSource& source, const WeightMap& map, const std::string& prefix, size_t count) {
  const SafetensorsReader expected(archive("expected.safetensors"));
  EXPECT_EQ(map.tensors.size(), count);
  EXPECT_EQ(map.missing, std::vector<std::string>{});
  for (const RewrittenTensor& tensor : map.tensors) {
    const StoredTensor& golden = expected.at(prefix + tensor.name);
    EXPECT_EQ(tensor.shape, golden.shape) << tensor.name;
    EXPECT_EQ(values(source, tensor, *golden.dtype), expected.read_all(golden.name)) << tensor.name;
  }
}

TEST(WeightMaps, TurnJaxArraysAsTimmDoes) {
  const WeightSource source = WeightSource::open(archive("jax_vit.npz"));
  const WeightMap map = map_weights(source, WeightKind::kTimmVitNpz);
  expect_golden(source, map, "timm/", 32);
  EXPECT_EQ(map.dropped, (std::vector<std::string>{"pre_logits/kernel (not a part of the model)",
                                                   "pre_logits/bias (not a part of the model)"}));
  const std::pair<std::string, std::string> key{"Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias",
                                                "blocks.1.attn.qkv.bias"};
  EXPECT_NE(std::ranges::find(map.renamed, key), map.renamed.end());
}

TEST(WeightMaps, ReadOptAsTransformersWritesIt) {
  const WeightSource source = WeightSource::open(archive("opt.bin"));
  const WeightMap map = map_weights(source, WeightKind::kOpt);
  expect_golden(source, map, "opt.bin/", 36);
  EXPECT_EQ(map.dropped, std::vector<std::string>{"lm_head.weight (repeats the embedding)"});
  EXPECT_EQ(map.renamed.size(), 0u);
}

TEST(WeightMaps, TakeOnlyWhatEpalmTrains) {
  const WeightSource source = WeightSource::open(archive("checkpoint.pth"));
  const WeightMap map = map_weights(source, WeightKind::kEpalm);
  expect_golden(source, map, "checkpoint.pth/", 10);
  EXPECT_EQ(map.dropped, std::vector<std::string>{"transformer.model.decoder.layers.0.fc2.1.adapter.0.weight (repeats "
                                                  "model_text.model.decoder.layers.0.fc2.1.adapter.0.weight)"});
}

TEST(WeightMaps, KeepEverythingRaw) {
  const WeightSource source = WeightSource::open(archive("float8.pt"));
  const WeightMap map = map_weights(source, WeightKind::kRaw);
  ASSERT_EQ(map.tensors.size(), 1u);
  EXPECT_EQ(map.tensors[0].name, "x");
  EXPECT_EQ(map.dropped, std::vector<std::string>{"w (F8_E4M3 cannot be written)"});
}

/// A file of made tensors, one element per name unless said.
class WeightMapsMade : public ::testing::Test {
 protected:
  const WeightSource& store(const std::vector<std::pair<std::string, Shape>>& tensors) {
    std::vector<NamedTensor> named;
    for (const auto& [name, shape] : tensors)
      named.push_back(
          {name, make_tensor(DType::kF32, shape, std::vector<double>(static_cast<size_t>(shape.elements()), 1))});
    write_tensors(path_, named);
    source_ = std::make_unique<WeightSource>(WeightSource::open(path_));
    return *source_;
  }
  /// The goldens' names of a kind, each of shape (1), with a prefix.
  static std::vector<std::pair<std::string, Shape>> named(const std::string& golden, const std::string& old_prefix,
                                                          const std::string& prefix) {
    std::vector<std::pair<std::string, Shape>> result;
    const SafetensorsReader expected(archive("expected.safetensors"));
    for (const StoredTensor& tensor : expected.tensors()) {
      if (!tensor.name.starts_with(golden)) continue;
      std::string name = tensor.name.substr(golden.size());
      if (name.starts_with(old_prefix)) name = name.substr(old_prefix.size());
      result.emplace_back(prefix + name, Shape{1});
    }
    return result;
  }
  static std::vector<std::string> names(const WeightMap& map) {
    std::vector<std::string> result;
    for (const RewrittenTensor& tensor : map.tensors) result.push_back(tensor.name);
    std::ranges::sort(result);
    return result;
  }
  ::testing::AssertionResult refused(const std::vector<std::pair<std::string, Shape>>& tensors, WeightKind kind,
                                     std::vector<std::string> parts) {
    store(tensors);
    parts.push_back(path_);
    return throws_error([&] { map_weights(*source_, kind); }, ErrorKind::kWeights, parts);
  }

  ScratchFolder folder_;
  std::string path_ = folder_ / "w.safetensors";
  std::unique_ptr<WeightSource> source_;
};

TEST_F(WeightMapsMade, OptMayHaveAnyKnownPrefix) {
  const std::vector<std::string> wanted = names(map_weights(WeightSource::open(archive("opt.bin")), WeightKind::kOpt));
  for (const char* prefix :
       {"", "decoder.", "model.decoder.", "model.model.decoder.", "text.model.decoder.", "module.model.decoder."}) {
    auto tensors = named("opt.bin/", "model.decoder.", prefix);
    tensors.emplace_back("connector.0.weight", Shape{1});
    tensors.emplace_back("decoder.version", Shape{1});
    const WeightMap map = map_weights(store(tensors), WeightKind::kOpt);
    EXPECT_EQ(names(map), wanted) << prefix;
    EXPECT_EQ(map.missing.size(), 0u);
    EXPECT_EQ(map.dropped.size(), 3u);  // with the head
    EXPECT_EQ(map.renamed.size(), std::string(prefix) == "model.decoder." ? 0u : 36u);
  }
}

TEST_F(WeightMapsMade, OurBackbonesBecomePlainTimmFiles) {
  auto tensors = named("timm/", "", "vision.");
  const size_t count = tensors.size();
  tensors.emplace_back("text.model.decoder.embed_tokens.weight", Shape{1});
  tensors.emplace_back("blocks.7.other", Shape{1});  // not ours, so no block
  const WeightMap map = map_weights(store(tensors), WeightKind::kTimmVit);
  EXPECT_EQ(map.tensors.size(), count);
  EXPECT_EQ(map.missing.size(), 0u);
  EXPECT_EQ(map.dropped.size(), 2u);
  EXPECT_EQ(names(map), names(map_weights(store(named("timm/", "", "module.")), WeightKind::kTimmVit)));
}

TEST_F(WeightMapsMade, EveryBlockMustBeComplete) {
  const auto without = [](std::vector<std::pair<std::string, Shape>> tensors, const std::vector<std::string>& gone) {
    std::erase_if(tensors, [&](const auto& tensor) { return std::ranges::find(gone, tensor.first) != gone.end(); });
    return tensors;
  };
  const std::vector<std::string> opt{"model.decoder.embed_positions.weight", "model.decoder.final_layer_norm.bias",
                                     "model.decoder.layers.0.fc1.bias"};
  EXPECT_EQ(map_weights(store(without(named("opt.bin/", "", ""), opt)), WeightKind::kOpt).missing, opt);
  const std::vector<std::string> vit{"cls_token", "head.bias", "blocks.1.norm2.weight"};
  EXPECT_EQ(map_weights(store(without(named("timm/", "", ""), vit)), WeightKind::kTimmVit).missing, vit);
  EXPECT_EQ(map_weights(store({{"cls_token", {1}}}), WeightKind::kTimmVit).missing.size(), 5u + 12u);
  EXPECT_EQ(
      map_weights(store({{"connector.1.weight", {1}}, {"prompt_module.prefix_embedding.3.bias", {1}}}),
                  WeightKind::kEpalm)
          .missing,
      (std::vector<std::string>{"connector.0.weight", "connector.0.bias", "connector.1.bias",
                                "prompt_module.prefix_embedding.0.weight", "prompt_module.prefix_embedding.1.weight",
                                "prompt_module.prefix_embedding.1.bias", "prompt_module.prefix_embedding.3.weight"}));
  EXPECT_EQ(
      map_weights(store({{"cls", {1}}, {"Transformer/encoderblock_0/LayerNorm_0/bias", {1}}}), WeightKind::kTimmVitNpz)
          .missing.size(),
      5u + 15u);
}

TEST_F(WeightMapsMade, RefusesOtherArchitectures) {
  EXPECT_TRUE(
      refused({{"blocks.0.ls1.gamma", {1}}, {"dist_token", {1}}}, WeightKind::kTimmVit,
              {"2 problems", "unknown: 'blocks.0.ls1.gamma' (1), so this is another architecture", "'dist_token'"}));
  EXPECT_TRUE(refused({{"model.decoder.layers.0.mlp.up.weight", {1}}}, WeightKind::kOpt,
                      {"unknown: 'model.decoder.layers.0.mlp.up.weight'"}));
  EXPECT_TRUE(refused({{"cls", {1}}, {"Transformer/encoderblock_0/Other_0/bias", {1}}}, WeightKind::kTimmVitNpz,
                      {"unknown: 'Transformer/encoderblock_0/Other_0/bias'"}));
  EXPECT_TRUE(refused({{"cls", {1}}, {"embedding/kernel", {1}}}, WeightKind::kTimmVitNpz,
                      {"'embedding/kernel' must have 4 axes; got (1)"}));
  EXPECT_TRUE(refused({{"layers.0.fc1.bias", {1}}, {"layers.1.fc1.bias", {2}}}, WeightKind::kOpt,
                      {"misshapen: 'layers.1.fc1.bias' must be (1), as 'layers.0.fc1.bias' is; got (2)"}));
  EXPECT_TRUE(refused({{"cls_token", {1}}, {"module.cls_token", {1}}}, WeightKind::kTimmVit,
                      {"ambiguous: 'cls_token' is both"}));
  for (const WeightKind kind : {WeightKind::kOpt, WeightKind::kTimmVit, WeightKind::kTimmVitNpz, WeightKind::kEpalm})
    EXPECT_TRUE(refused({{"something", {1}}}, kind,
                        {"expected weights of kind " + std::string(to_string(kind)), "got none of them among 1"}));
}

/// The golden JAX arrays, one of them of another dtype.
class JaxArraysMade : public WeightMapsMade {
 protected:
  ::testing::AssertionResult refused(const std::string& name, const std::string& dtype, const std::string& said) {
    const auto golden = open_tensor_file(archive("jax_vit.npz"));
    std::string header = "{", data;
    for (const StoredTensor& tensor : golden->tensors()) {
      const int64_t item = find_stored_dtype(tensor.name == name ? dtype : tensor.dtype_name)->bits / 8;
      const size_t begin = data.size();
      data.append(static_cast<size_t>(tensor.shape.elements() * item), '\0');
      std::string shape;
      for (const int64_t extent : tensor.shape.dims()) shape += concat(shape.empty() ? "" : ",", extent);
      header += concat(header.size() > 1 ? "," : "", "\"", tensor.name, "\":{\"dtype\":\"",
                       tensor.name == name ? dtype : tensor.dtype_name, "\",\"shape\":[", shape, "],\"data_offsets\":[",
                       begin, ",", data.size(), "]}");
    }
    write_text(path_, raw_file(header + "}", data));
    const WeightSource source = WeightSource::open(path_);
    return throws_error([&] { map_weights(source, WeightKind::kTimmVitNpz); }, ErrorKind::kWeights,
                        {path_, " problem", said});
  }
};

TEST_F(JaxArraysMade, MustHaveDtypesThatCanBeWrittenAndStacked) {
  EXPECT_TRUE(refused("cls", "I8", "wrong dtype: 'cls' is I8, which cannot be written"));
  const std::string attention = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/";
  EXPECT_TRUE(refused(attention + "query/kernel", "I8",
                      "wrong dtype: '" + attention + "query/kernel' is I8, which cannot be written"));
  for (const std::string part : {"query", "key", "value"})
    for (const std::string array : {"/kernel", "/bias"})
      EXPECT_TRUE(refused(attention + part + array, "F16",
                          part == "query" ? "'" + attention + "key" + array + "' is F32"
                                          : "'" + attention + part + array + "' is F16; must be F32, as '" + attention +
                                                "query" + array + "' is"));
}

TEST_F(WeightMapsMade, JaxBlocksMustBeAlikeAndHoldSomething) {
  EXPECT_TRUE(refused(
      {{"Transformer/encoderblock_0/LayerNorm_0/bias", {1}}, {"Transformer/encoderblock_3/LayerNorm_0/bias", {2}}},
      WeightKind::kTimmVitNpz,
      {"misshapen: 'Transformer/encoderblock_3/LayerNorm_0/bias' must be (1), as "
       "'Transformer/encoderblock_0/LayerNorm_0/bias' is; got (2)"}));
  EXPECT_TRUE(refused({{"cls", {0}}}, WeightKind::kTimmVitNpz, {"misshapen: 'cls' must not be empty; got (0)"}));
  EXPECT_TRUE(refused({{"cls", {1}}, {"Transformer/encoderblock_99999999999/LayerNorm_0/bias", {1}}},
                      WeightKind::kTimmVitNpz, {"unknown: 'Transformer/encoderblock_99999999999/LayerNorm_0/bias'"}));
  EXPECT_EQ(map_weights(store({{"Transformer/encoderblock_2/LayerNorm_0/bias", {1}}}), WeightKind::kTimmVitNpz)
                .missing.size(),
            6u + 3 * 16u - 1);
}

TEST_F(WeightMapsMade, RefusesAHeadOfItsOwn) {
  write_tensors(path_, {{"embed_tokens.weight", make_tensor(DType::kF32, {2}, {1, 2})},
                        {"lm_head.weight", make_tensor(DType::kF32, {2}, {1, 3})}});
  const WeightSource source = WeightSource::open(path_);
  EXPECT_TRUE(throws_error([&] { map_weights(source, WeightKind::kOpt); }, ErrorKind::kWeights,
                           {"untied: 'lm_head.weight' must equal 'embed_tokens.weight'"}));
}

TEST_F(WeightMapsMade, AnAdapterIsDroppedOnlyWhereItRepeatsAnother) {
  EXPECT_EQ(names(map_weights(store({{"transformer.layers.0.adapter.weight", {1}}}), WeightKind::kEpalm)),
            (std::vector<std::string>{"transformer.layers.0.adapter.weight"}));
  for (const std::string module : {"", "module."})
    for (const float value : {2.0f, 3.0f}) {
      write_tensors(path_, {{module + "model_text.a.adapter", make_tensor(DType::kF32, {2}, {1, 2})},
                            {module + "transformer.a.adapter", make_tensor(DType::kF32, {2}, {1, value})}});
      const WeightSource source = WeightSource::open(path_);
      if (value == 2)
        EXPECT_EQ(names(map_weights(source, WeightKind::kEpalm)), std::vector<std::string>{"model_text.a.adapter"});
      else
        EXPECT_TRUE(throws_error([&] { map_weights(source, WeightKind::kEpalm); }, ErrorKind::kWeights,
                                 {"transformer.a.adapter' must equal '", "model_text.a.adapter'"}));
    }
}

TEST(WeightKinds, AreNamed) {
  for (const char* word : {"raw", "opt", "timm_vit", "timm_vit_npz", "epalm"})
    EXPECT_EQ(to_string(weight_kind(word)), word);
  EXPECT_TRUE(throws_error([] { weight_kind("gpt"); }, ErrorKind::kConfig,
                           {"--as must be one of raw, opt, timm_vit, timm_vit_npz, epalm; got gpt"}));
}

}  // namespace
}  // namespace permafrost::testing
