#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "models/opt.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

/// A config.json that goes away with the test.
class HfFile {
 public:
  explicit HfFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() / concat("permafrost_opt_", getpid(), "_config.json")) {
    std::ofstream(path_) << text;
  }
  ~HfFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

/// As facebook/opt-350m has it; of a key that `extra` gives again, the last one counts.
std::string opt350m(const std::string& extra = "") {
  return R"({"model_type": "opt", "activation_function": "relu", "attention_dropout": 0.0, "do_layer_norm_before": false,
    "dropout": 0.1, "ffn_dim": 4096, "hidden_size": 1024, "max_position_embeddings": 2048, "num_attention_heads": 16,
    "num_hidden_layers": 24, "vocab_size": 50272, "word_embed_proj_dim": 512, "_remove_final_layer_norm": false)" + extra + "}";
}

TEST(OptConfig, FromAHuggingFaceFile) {
  const HfFile file(opt350m());
  const OptConfig got = OptConfig::from_hf(file.path()), want = OptConfig::of(OptSize::k350M);
  EXPECT_EQ(got.vocab, want.vocab);
  EXPECT_EQ(got.layers, want.layers);
  EXPECT_EQ(got.hidden, want.hidden);
  EXPECT_EQ(got.heads, want.heads);
  EXPECT_EQ(got.ffn, want.ffn);
  EXPECT_EQ(got.word_embed_proj_dim, want.word_embed_proj_dim);
  EXPECT_EQ(got.norm_before, want.norm_before);
  EXPECT_EQ(got.final_norm, want.final_norm);
  EXPECT_EQ(got.max_positions, want.max_positions);
  EXPECT_EQ(got.dropout, want.dropout);
}

TEST(OptConfig, AbsentFieldsMeanWhatTransformersTakesThemFor) {
  const HfFile file(R"({"ffn_dim": 8, "hidden_size": 6, "max_position_embeddings": 9, "num_attention_heads": 2,
                        "num_hidden_layers": 1, "vocab_size": 7})");
  const OptConfig got = OptConfig::from_hf(file.path());
  EXPECT_EQ(got.word_embed_proj_dim, 6);
  EXPECT_TRUE(got.norm_before);
  EXPECT_TRUE(got.final_norm);
}

TEST(OptConfig, RefusesFilesOfOtherModelsByField) {
  const auto refuses = [](const std::string& text, const std::vector<std::string>& parts) {
    const HfFile file(text);
    return throws_error([&] { OptConfig::from_hf(file.path()); }, ErrorKind::kConfig, parts);
  };
  EXPECT_TRUE(refuses(opt350m(R"(, "model_type": "gpt2")"), {"'model_type' = \"opt\"", "gpt2", "config.json"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "activation_function": "gelu")"), {"'activation_function' = \"relu\"", "gelu"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "enable_bias": false)"), {"'enable_bias' = true", "false"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "layer_norm_elementwise_affine": false)"), {"'layer_norm_elementwise_affine'"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "tie_word_embeddings": false)"), {"'tie_word_embeddings' = true"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "attention_dropout": 0.1)"), {"'attention_dropout'", "0.1"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "hidden_size": "big")"), {"a whole number as 'hidden_size'", "big"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "hidden_size": 1024.5)"), {"a whole number as 'hidden_size'"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "do_layer_norm_before": 1)"), {"true or false as 'do_layer_norm_before'"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "dropout": "no")"), {"a number as 'dropout'"}));
  EXPECT_TRUE(refuses(opt350m(R"(, "num_attention_heads": 15)"), {"hidden must be a multiple of heads = 15"}));
  EXPECT_TRUE(refuses(R"({"hidden_size": 4})", {"a whole number as 'vocab_size'", "nothing"}));
  EXPECT_TRUE(refuses("[1]", {"a JSON object", "array"}));
  EXPECT_TRUE(refuses("{", {"a JSON object", "no JSON"}));
  EXPECT_TRUE(throws_error([] { OptConfig::from_hf("/nowhere/config.json"); }, ErrorKind::kConfig, {"/nowhere/config.json", "a readable file"}));
}

}  // namespace
}  // namespace permafrost
