#include "launch/training/run_identity.h"

#include <algorithm>

#include "configs/json.h"
#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost {

namespace {

void clear_fields(config::Data& data, std::initializer_list<const char*> names) {
  for (const char* name : names) data.GetReflection()->ClearField(&data, data.GetDescriptor()->FindFieldByName(name));
}

/// Where files are, which is not part of what a run is, and `more`.
void clear_places(config::Data& data, std::initializer_list<const char*> more) {
  clear_fields(data, {"root", "captions", "images", "tokenizer", "questions", "annotations", "shards"});
  clear_fields(data, more);
  for (config::MixedData& entry : *data.mutable_mix()) clear_places(*entry.mutable_data(), more);
}

/// Values as JSON by field path, "optimizer.lr".
std::map<std::string, std::string> fields_by_path(const config::Config& config) {
  std::map<std::string, std::string> fields;
  const Json flat = parse_json(config::to_json(config)).flatten();
  for (const auto& [pointer, value] : flat.items()) {
    std::string path = pointer.substr(1);
    std::ranges::replace(path, '/', '.');
    fields[path] = json_text(value);
  }
  return fields;
}

}  // namespace

std::map<std::string, std::string> shared_settings(const config::Config& config) {
  config::Config kept = config;
  kept.mutable_parallel()->clear_threads();
  kept.clear_logging();
  kept.clear_weights();
  clear_places(*kept.mutable_data(), {"decode_threads"});
  clear_places(*kept.mutable_evaluation()->mutable_data(), {"decode_threads"});
  std::map<std::string, std::string> settings = fields_by_path(kept);
  // Where files are may differ, but not whether there are any: ranks load the same parts.
  const auto presence = [](const std::string& path) { return path.empty() ? "not set" : "a file"; };
  settings["weights.vision"] = presence(config.weights().vision());
  settings["weights.text"] = presence(config.weights().text());
  settings["weights.adapter"] = presence(config.weights().adapter());
  return settings;
}

std::map<std::string, std::string> run_identity(const config::Config& config, const TextTable& texts) {
  config::Config kept = config;
  const config::Parallel all = kept.parallel();
  kept.clear_parallel();
  kept.mutable_parallel()->set_reduction(all.reduction());
  kept.mutable_parallel()->set_headroom_bits(all.headroom_bits());
  if (kept.precision().compute() != config::Compute::FP16) kept.mutable_precision()->clear_loss_scale();
  kept.clear_logging();
  kept.clear_checkpoint();
  kept.clear_weights();  // frozen weights are compared by hash, trained ones come from the checkpoint
  kept.mutable_train()->clear_max_steps();
  kept.mutable_train()->clear_final_check();
  // As it was before there was a choice, so that checkpoints from then go on.
  if (kept.precision().f32_products() == config::F32Products::FP32) kept.mutable_precision()->clear_f32_products();
  kept.clear_evaluation();  // what is looked at on the way changes no bit
  kept.clear_validation();
  clear_places(*kept.mutable_data(), {"decode_threads", "prefetch"});
  std::map<std::string, std::string> identity = fields_by_path(kept);
  identity["data.samples"] = texts.hash();
  return identity;
}

void check_same_run(const std::map<std::string, std::string>& stored, const std::map<std::string, std::string>& now) {
  std::string differences;
  const auto value = [](const std::map<std::string, std::string>& map, const std::string& path) {
    const auto found = map.find(path);
    return found == map.end() ? std::string("not set") : found->second;
  };
  std::map<std::string, std::string> paths = stored;
  paths.insert(now.begin(), now.end());
  for (const auto& [path, ignored] : paths)
    if (value(stored, path) != value(now, path))
      differences += concat("\n  ", path, ": expected ", value(stored, path), "; got ", value(now, path));
  if (!differences.empty())
    fail(ErrorKind::kConfig,
         "resume: a run continues with the settings it began with (start another from its adapter with "
         "weights.adapter):",
         differences);
}

}  // namespace permafrost
