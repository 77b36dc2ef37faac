#include <fstream>
#include <nlohmann/json.hpp>

#include "models/opt.h"

namespace permafrost {

namespace {

using Json = nlohmann::json;

/// Typed, strict access to the fields of one config.json.
class HfConfig {
 public:
  explicit HfConfig(const std::string& path) : path_(path) {
    std::ifstream stream(path);
    if (!stream) refuse("a readable file", "none");
    json_ = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
    if (!json_.is_object()) refuse("a JSON object", json_.is_discarded() ? "no JSON" : json_.type_name());
  }

  int64_t whole(const char* field) const {
    const auto value = json_.find(field);
    if (value == json_.end() || !value->is_number_integer()) refuse(concat("a whole number as '", field, "'"), shown(value));
    return value->get<int64_t>();
  }
  int64_t whole_or(const char* field, int64_t absent) const { return json_.contains(field) ? whole(field) : absent; }

  bool flag_or(const char* field, bool absent) const {
    const auto value = json_.find(field);
    if (value == json_.end()) return absent;
    if (!value->is_boolean()) refuse(concat("true or false as '", field, "'"), shown(value));
    return value->get<bool>();
  }
  float number_or(const char* field, double absent) const {
    const auto value = json_.find(field);
    if (value == json_.end()) return static_cast<float>(absent);
    if (!value->is_number()) refuse(concat("a number as '", field, "'"), shown(value));
    return value->get<float>();
  }

  /// The model is another one unless the field, where it is there, has this value.
  void only(const char* field, const Json& meaning) const {
    const auto value = json_.find(field);
    if (value != json_.end() && *value != meaning) refuse(concat("'", field, "' = ", meaning.dump()), shown(value));
  }

 private:
  std::string shown(Json::const_iterator value) const { return value == json_.end() ? "nothing" : value->dump(); }
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const {
    fail(ErrorKind::kConfig, "opt: ", path_, " must hold ", expected, "; got ", got);
  }

  std::string path_;
  Json json_;
};

}  // namespace

OptConfig OptConfig::from_hf(const std::string& path) {
  const HfConfig file(path);
  file.only("model_type", "opt");
  file.only("activation_function", "relu");
  file.only("enable_bias", true);
  file.only("layer_norm_elementwise_affine", true);
  file.only("tie_word_embeddings", true);
  file.only("attention_dropout", 0.0);
  OptConfig config;
  config.vocab = file.whole("vocab_size");
  config.layers = file.whole("num_hidden_layers");
  config.hidden = file.whole("hidden_size");
  config.heads = file.whole("num_attention_heads");
  config.ffn = file.whole("ffn_dim");
  config.max_positions = file.whole("max_position_embeddings");
  // Absent, these mean what transformers takes them for.
  config.word_embed_proj_dim = file.whole_or("word_embed_proj_dim", config.hidden);
  config.norm_before = file.flag_or("do_layer_norm_before", true);
  config.final_norm = config.norm_before && !file.flag_or("_remove_final_layer_norm", false);
  config.dropout = file.number_or("dropout", 0.1);
  config.check();
  return config;
}

}  // namespace permafrost
