#include "configs/sizes.h"

#include <google/protobuf/descriptor.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "core/base/json.h"

namespace permafrost::config {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

namespace {

using Numbers = std::map<std::string, int>;  // field name -> value, bool as 0 and 1

int number_of(const Message& message, const FieldDescriptor* field) {
  const auto& reflection = *message.GetReflection();
  return field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL ? static_cast<int>(reflection.GetBool(message, field))
                                                            : reflection.GetInt32(message, field);
}

void set_number(Message& message, const FieldDescriptor* field, int value) {
  const auto& reflection = *message.GetReflection();
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL)
    reflection.SetBool(&message, field, value != 0);
  else
    reflection.SetInt32(&message, field, value);
}

void fill(Message& message, const std::string& path, const std::string& source, const Numbers& numbers,
          Problems& problems) {
  for (const auto& [name, value] : numbers) {
    const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
    const bool given = message.GetReflection()->HasField(message, field);
    if (given && number_of(message, field) != value)
      problems.expected(path + "." + name, concat(value, ", as ", source, " has"),
                        concat(number_of(message, field), " (leave one of the two out)"));
    set_number(message, field, value);
  }
}

Numbers vit_numbers(Vit::Size size) {
  switch (size) {
    case Vit::FREE:
      return {};
    case Vit::VIT_B16:
      return {{"patch", 16}, {"dim", 768}, {"depth", 12}, {"heads", 12}, {"mlp_dim", 3072}};
    case Vit::VIT_L16:
      return {{"patch", 16}, {"dim", 1024}, {"depth", 24}, {"heads", 16}, {"mlp_dim", 4096}};
  }
  return {};
}

Numbers opt_layers(int layers, int hidden, int heads) {
  return {{"vocab", 50272},           {"layers", layers},
          {"hidden", hidden},         {"heads", heads},
          {"ffn", 4 * hidden},        {"word_embed_proj_dim", hidden},
          {"final_layer_norm", true}, {"do_layer_norm_before", true}};
}

Numbers opt_numbers(Opt::Size size) {
  switch (size) {
    case Opt::FREE:
      return {};
    case Opt::OPT_125M:
      return opt_layers(12, 768, 12);
    case Opt::OPT_350M: {
      Numbers numbers = opt_layers(24, 1024, 16);
      numbers["word_embed_proj_dim"] = 512;
      numbers["final_layer_norm"] = false;
      numbers["do_layer_norm_before"] = false;
      return numbers;
    }
    case Opt::OPT_1_3B:
      return opt_layers(24, 2048, 32);
    case Opt::OPT_2_7B:
      return opt_layers(32, 2560, 32);
    case Opt::OPT_6_7B:
      return opt_layers(32, 4096, 32);
  }
  return {};
}

/// Typed access to the fields of a config.json; what does not fit is a problem of the field that named the file.
class HfFile {
 public:
  HfFile(const Json& json, std::string file, std::string where, Problems& problems)
      : json_(json), file_(std::move(file)), where_(std::move(where)), problems_(problems) {}

  /// Nothing where the field is absent and may be, or is a problem.
  std::optional<int> whole(const char* field, bool required) const {
    const auto value = json_.find(field);
    if (value == json_.end() && !required) return std::nullopt;
    const bool fits = value != json_.end() && value->is_number_integer() && std::in_range<int>(value->get<int64_t>());
    if (fits) return value->get<int>();
    problem(concat("the whole number '", field, "'"), value);
    return std::nullopt;
  }
  bool flag(const char* field, bool absent) const {
    const auto value = json_.find(field);
    if (value == json_.end()) return absent;
    if (!value->is_boolean()) problem(concat("true or false as '", field, "'"), value);
    return value->is_boolean() ? value->get<bool>() : absent;
  }
  /// With any other value than this one, it is another model than ours.
  void only(const char* field, const Json& value) const {
    const auto found = json_.find(field);
    if (found != json_.end() && *found != value) problem(concat("'", field, "' = ", json_text(value)), found);
  }

 private:
  void problem(const std::string& expected, Json::const_iterator got) const {
    problems_.expected(where_, concat(expected, " in ", file_),
                       got == json_.end() ? std::string("nothing") : got->dump());
  }
  const Json& json_;
  std::string file_, where_;
  Problems& problems_;
};

Numbers hf_numbers(const HfFile& file) {
  struct Name {
    const char *theirs, *ours;
    bool required;
  };
  Numbers numbers;
  for (const Name& name : {Name{"vocab_size", "vocab", true}, Name{"num_hidden_layers", "layers", true},
                           Name{"hidden_size", "hidden", true}, Name{"num_attention_heads", "heads", true},
                           Name{"ffn_dim", "ffn", true}, Name{"word_embed_proj_dim", "word_embed_proj_dim", false},
                           Name{"max_position_embeddings", "max_positions", false}})
    if (const auto value = file.whole(name.theirs, name.required)) numbers[name.ours] = *value;
  // Absent, these have the meaning that transformers gives them.
  if (!numbers.contains("word_embed_proj_dim") && numbers.contains("hidden"))
    numbers["word_embed_proj_dim"] = numbers["hidden"];
  const bool before = file.flag("do_layer_norm_before", true);
  numbers["do_layer_norm_before"] = before;
  numbers["final_layer_norm"] = before && !file.flag("_remove_final_layer_norm", false);
  return numbers;
}

void read_hf_config(Opt& opt, const std::string& path, Problems& problems) {
  std::string name = opt.hf_config();
  const std::string where = path + ".hf_config";
  opt.clear_hf_config();
  std::error_code ignored;
  if (std::filesystem::is_directory(name, ignored)) name = (std::filesystem::path(name) / "config.json").string();
  std::ifstream stream(name);
  const auto json = stream ? try_parse_json(stream) : Json();
  if (!json.is_object()) {
    problems.expected(where, "the path of a Hugging Face config.json",
                      concat("'", name, "', which ", stream.is_open() ? "is not a JSON object" : "cannot be opened"));
    return;
  }
  const HfFile file(json, name, where, problems);
  file.only("model_type", "opt");
  file.only("activation_function", "relu");
  file.only("enable_bias", true);
  file.only("layer_norm_elementwise_affine", true);
  file.only("tie_word_embeddings", true);
  file.only("attention_dropout", 0.0);
  fill(opt, path, name, hf_numbers(file), problems);
}

void expand_vit(Vit& vit, const std::string& path, Problems& problems) {
  fill(vit, path, Vit::Size_Name(vit.size()), vit_numbers(vit.size()), problems);
}

void expand_opt(Opt& opt, const std::string& path, Problems& problems) {
  if (opt.has_hf_config() && opt.size() != Opt::FREE)
    problems.expected(path + ".hf_config", "nothing besides a published size", "'" + opt.hf_config() + "'");
  else if (opt.has_hf_config())
    read_hf_config(opt, path, problems);
  fill(opt, path, Opt::Size_Name(opt.size()), opt_numbers(opt.size()), problems);
}

}  // namespace

void expand_sizes(Config& config, Problems& problems) {
  Model& model = *config.mutable_model();
  if (model.has_epalm()) {
    expand_vit(*model.mutable_epalm()->mutable_vision(), "model.epalm.vision", problems);
    expand_opt(*model.mutable_epalm()->mutable_text(), "model.epalm.text", problems);
  }
  if (model.has_vision_classifier())
    expand_vit(*model.mutable_vision_classifier()->mutable_vision(), "model.vision_classifier.vision", problems);
  if (model.has_projector()) {
    expand_vit(*model.mutable_projector()->mutable_vision(), "model.projector.vision", problems);
    expand_opt(*model.mutable_projector()->mutable_text(), "model.projector.text", problems);
  }
  if (model.has_language_model())
    expand_opt(*model.mutable_language_model()->mutable_text(), "model.language_model.text", problems);
}

}  // namespace permafrost::config
