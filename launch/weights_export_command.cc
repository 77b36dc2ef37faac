#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "core/base/json.h"
#include "core/weights/torch_writer.h"
#include "data/files/make_folder.h"
#include "launch/commands.h"
#include "launch/weights_convert.h"

namespace permafrost {

namespace {

namespace fs = std::filesystem;

Json json_file(const fs::path& path) {
  std::ifstream stream(path);
  return stream ? try_parse_json(stream) : Json();
}

/// The first config.json in the folder of the weights or the two above: of a run, or of a transformers model. Null
/// where there is none.
Json find_config(const std::string& from) {
  std::error_code ignored;
  const fs::path at = fs::is_directory(from, ignored) ? fs::path(from) : fs::path(from).parent_path();
  // Canonical: a slash at its end would be a level of its own.
  fs::path folder = fs::weakly_canonical(at.empty() ? fs::path(".") : at, ignored);
  for (int above = 0; above < 3; ++above, folder = folder.parent_path())
    if (Json config = json_file(folder / "config.json"); config.is_object()) return config;
  return {};
}

/// What a checkpoint of eP-ALM's trainer has besides the model: epoch and config, as far as the source knows them.
Json other_entries(const WeightSource& source, const std::string& from) {
  Json others = Json::object();
  const auto metadata = metadata_of(source);
  for (const char* key : {"epoch", "config", "best_epoch", "best_valid", "lr_scheduler"})
    if (const auto found = metadata.find(key); found != metadata.end())
      if (Json value = try_parse_json(found->second); !value.is_discarded()) others[key] = value;
  if (!others.contains("config"))
    if (Json config = find_config(from); config.contains("model")) others["config"] = config;
  return others;
}

void export_epalm(const WeightSource& source, const WeightsExportOptions& options) {
  if (!options.to.ends_with(".pth"))
    fail(ErrorKind::kConfig, "weights export: --to must end in .pth with --as epalm; got ", options.to);
  const WeightMap map = map_and_report(source, WeightKind::kEpalm);
  const std::vector<TensorDeclaration> declarations = declarations_of(map, DType::kF32);
  TorchWriter writer(options.to, declarations, other_entries(source, options.from));
  for (size_t i = 0; i < map.tensors.size(); ++i)
    rewrite(source, map.tensors[i], declarations[i].spec.dtype, [&](auto data) { writer.write(data); });
  writer.finish();
  std::cout << "wrote " << options.to << ": " << map.tensors.size() << " tensors\n";
}

int64_t layers_of(const WeightMap& map) {
  return std::ranges::count_if(map.tensors,
                               [](const RewrittenTensor& tensor) { return tensor.name.ends_with(".fc1.weight"); });
}

const RewrittenTensor* find(const WeightMap& map, const std::string& name) {
  const auto found = std::ranges::find(map.tensors, "model.decoder." + name, &RewrittenTensor::name);
  return found == map.tensors.end() ? nullptr : &*found;
}

/// What the run's configuration says of the text model, under the names of transformers' config.json; or such a file.
Json known_config(const std::string& from) {
  const Json config = find_config(from);
  for (const char* place : {"/model/epalm/text", "/model/language_model/text", "/model/projector/text"}) {
    const Json::json_pointer at(place);
    if (!config.is_object() || !config.contains(at)) continue;
    const Json& text = config[at];
    Json known = Json::object();
    for (const auto& [ours, theirs] : {std::pair("heads", "num_attention_heads"), std::pair("dropout", "dropout"),
                                       std::pair("do_layer_norm_before", "do_layer_norm_before")})
      if (text.contains(ours)) known[theirs] = text[ours];
    return known;
  }
  return config.is_object() && config.contains("model_type") && config["model_type"] == "opt" ? config : Json::object();
}

/// A field where it is known and of the type of `otherwise`.
Json given(const Json& known, const char* field, const Json& otherwise) {
  return known.contains(field) && known[field].type() == otherwise.type() ? known[field] : otherwise;
}

/// Attention heads: as asked, as the run's or the model's configuration says, or as published models of that width
/// have.
int64_t heads_of(const WeightsExportOptions& options, const Json& known, int64_t hidden) {
  if (options.heads > 0) return options.heads;
  if (known.contains("num_attention_heads") && known["num_attention_heads"].is_number_integer())
    return known["num_attention_heads"].get<int64_t>();
  for (const auto& [width, heads] :
       {std::pair(768, 12), std::pair(1024, 16), std::pair(2048, 32), std::pair(2560, 32), std::pair(4096, 32)})
    if (hidden == width) return heads;
  fail(ErrorKind::kConfig, "weights export: the number of attention heads must be in a config.json beside ",
       options.from, " or given by --heads; got neither, and no published model is ", hidden, " wide");
}

/// config.json of transformers for what the weights show.
std::string hf_config(const WeightMap& map, const WeightsExportOptions& options) {
  const Shape tokens = find(map, "embed_tokens.weight")->shape, positions = find(map, "embed_positions.weight")->shape;
  const bool final_norm = find(map, "final_layer_norm.weight") != nullptr;
  const int64_t hidden = positions[1];
  const Json known = known_config(options.from);
  const int64_t heads = heads_of(options, known, hidden);
  const bool norm_before = given(known, "do_layer_norm_before", Json(final_norm)).get<bool>();
  if (heads < 1 || hidden % heads != 0)
    fail(ErrorKind::kConfig, "weights export: heads must divide the width ", hidden, "; got ", heads);
  const OrderedJson config{{"architectures", {"OPTForCausalLM"}},
                           {"model_type", "opt"},
                           {"activation_function", "relu"},
                           {"vocab_size", tokens[0]},
                           {"word_embed_proj_dim", tokens[1]},
                           {"hidden_size", hidden},
                           {"num_hidden_layers", layers_of(map)},
                           {"num_attention_heads", heads},
                           {"ffn_dim", find(map, "layers.0.fc1.weight")->shape[0]},
                           {"max_position_embeddings", positions[0] - 2},
                           {"do_layer_norm_before", norm_before},
                           {"_remove_final_layer_norm", norm_before && !final_norm},
                           {"dropout", given(known, "dropout", Json(0.1))},
                           {"attention_dropout", 0.0},
                           {"layerdrop", 0.0},
                           {"bos_token_id", 2},
                           {"eos_token_id", 2},
                           {"pad_token_id", 1},
                           {"prefix", "</s>"},
                           {"tie_word_embeddings", true}};
  return json_text(config, 2) + "\n";
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  for (const char* name : {"vocab.json", "merges.txt"}) {
    std::error_code error;
    fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing, error);
    if (error)
      fail(ErrorKind::kStorage, "weights export: cannot copy ", (from / name).string(), " to ", to.string(), ": ",
           error.message());
  }
}

void export_backbone(const WeightSource& source, WeightKind kind, const WeightsExportOptions& options) {
  const std::optional<DType> dtype = asked_dtype(options.dtype);
  const bool folder = !options.to.ends_with(".safetensors");
  WeightMap map = map_and_report(source, kind);
  if (!folder) return write_safetensors(source, std::move(map), dtype, options.to);
  const std::string config = kind == WeightKind::kOpt ? hf_config(map, options) : "";
  const fs::path to(options.to);
  make_folder(to, "weights export");
  write_safetensors(source, std::move(map), dtype, (to / "model.safetensors").string());
  if (!config.empty()) write_file_atomically((to / "config.json").string(), config);
  if (!options.tokenizer.empty()) copy_tokenizer(options.tokenizer, to);
}

}  // namespace

int run_weights_export(const WeightsExportOptions& options) {
  const WeightKind kind = weight_kind(options.as);
  if (kind == WeightKind::kRaw || kind == WeightKind::kTimmVitNpz)
    fail(ErrorKind::kConfig, "weights export: --as must be epalm, opt or timm_vit; got ", options.as);
  const WeightSource source = WeightSource::open(options.from);
  if (kind == WeightKind::kEpalm)
    export_epalm(source, options);
  else
    export_backbone(source, kind, options);
  return 0;
}

}  // namespace permafrost
