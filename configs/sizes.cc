#include "configs/sizes.h"

#include <google/protobuf/descriptor.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

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

void fill(Message& message, const std::string& path, const std::string& source, const Numbers& numbers, Problems& problems) {
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
    case Vit::FREE: return {};
    case Vit::VIT_B16: return {{"patch", 16}, {"dim", 768}, {"depth", 12}, {"heads", 12}, {"mlp_dim", 3072}};
    case Vit::VIT_L16: return {{"patch", 16}, {"dim", 1024}, {"depth", 24}, {"heads", 16}, {"mlp_dim", 4096}};
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
    case Opt::FREE: return {};
    case Opt::OPT_125M: return opt_layers(12, 768, 12);
    case Opt::OPT_350M: {
      Numbers numbers = opt_layers(24, 1024, 16);
      numbers["word_embed_proj_dim"] = 512;
      numbers["final_layer_norm"] = false;
      numbers["do_layer_norm_before"] = false;
      return numbers;
    }
    case Opt::OPT_1_3B: return opt_layers(24, 2048, 32);
    case Opt::OPT_2_7B: return opt_layers(32, 2560, 32);
    case Opt::OPT_6_7B: return opt_layers(32, 4096, 32);
  }
  return {};
}

void read_hf_config(Opt& opt, const std::string& path, Problems& problems) {
  static const std::map<std::string, std::string> kNames = {
      {"vocab_size", "vocab"},         {"num_hidden_layers", "layers"},
      {"hidden_size", "hidden"},       {"num_attention_heads", "heads"},
      {"ffn_dim", "ffn"},              {"word_embed_proj_dim", "word_embed_proj_dim"},
      {"max_position_embeddings", "max_positions"},
  };
  const std::string file = opt.hf_config();
  const std::string where = path + ".hf_config";
  std::ifstream stream(file);
  const auto json = stream ? nlohmann::json::parse(stream, nullptr, false) : nlohmann::json();
  if (!json.is_object()) {
    problems.expected(where, "the path of a Hugging Face config.json", "'" + file + "', which " +
                      (stream.is_open() ? "is not a JSON object" : "cannot be opened"));
    return;
  }
  if (json.value("model_type", std::string("opt")) != "opt")
    problems.expected(where, "model_type \"opt\" in " + file, json["model_type"].dump());
  Numbers numbers;
  for (const auto& [theirs, ours] : kNames) {
    const auto value = json.find(theirs);
    if (value != json.end() && value->is_number_integer()) {
      numbers[ours] = value->get<int>();
    } else if (theirs != "word_embed_proj_dim" && theirs != "max_position_embeddings") {
      problems.expected(where, concat("the whole number '", theirs, "' in ", file),
                        value == json.end() ? std::string("nothing") : value->dump());
    }
  }
  // Absent, these have the meaning that transformers gives them.
  if (!numbers.contains("word_embed_proj_dim") && numbers.contains("hidden"))
    numbers["word_embed_proj_dim"] = numbers["hidden"];
  const bool before = json.value("do_layer_norm_before", true);
  numbers["do_layer_norm_before"] = before;
  numbers["final_layer_norm"] = before && !json.value("_remove_final_layer_norm", false);
  fill(opt, path, file, numbers, problems);
  opt.clear_hf_config();
}

}  // namespace

void expand_sizes(Config& config, Problems& problems) {
  if (!config.model().has_epalm()) return;
  Epalm& epalm = *config.mutable_model()->mutable_epalm();
  const std::string path = "model.epalm.";
  Vit& vit = *epalm.mutable_vision();
  fill(vit, path + "vision", Vit::Size_Name(vit.size()), vit_numbers(vit.size()), problems);
  Opt& opt = *epalm.mutable_text();
  if (opt.has_hf_config() && opt.size() != Opt::FREE)
    problems.expected(path + "text.hf_config", "nothing besides a published size", "'" + opt.hf_config() + "'");
  else if (opt.has_hf_config())
    read_hf_config(opt, path + "text", problems);
  fill(opt, path + "text", Opt::Size_Name(opt.size()), opt_numbers(opt.size()), problems);
}

}  // namespace permafrost::config
