#include "launch/evaluation/model_config.h"

#include <filesystem>

#include "core/base/check.h"
#include "launch/training/checkpoint.h"
#include "launch/training/name_patterns.h"

namespace permafrost {
namespace fs = std::filesystem;

config::Resolved load_generating_config(const std::string& path, std::vector<std::string> overrides,
                                        const std::string& adapter) {
  if (!adapter.empty()) overrides.push_back("weights.adapter=" + adapter_file(adapter));
  config::Resolved resolved = config::load_config(path, overrides, check_name_patterns);
  const config::Model& model = resolved.config.model();
  if (!model.has_epalm())
    fail(ErrorKind::kConfig, "model: epalm expected, which generates texts from images; got ",
         model.GetReflection()->GetOneofFieldDescriptor(model, model.GetDescriptor()->oneof_decl(0))->name());
  if (resolved.config.evaluation().data().task() == config::Data::CLASSES)
    fail(ErrorKind::kConfig, "evaluation.data.task: expected CAPTIONING or VQA, texts being generated; got CLASSES");
  return resolved;
}

std::string missing_adapter_note(const config::Config& config, const std::string& config_path) {
  if (!config.weights().adapter().empty()) return {};
  std::string note =
      "adapter: no trained parameters were named (--adapter or weights.adapter), so those that training starts from "
      "are used";
  const CheckpointStore store((fs::path(config_path).parent_path() / "checkpoints").string(), 1);
  std::error_code ignored;
  if (fs::exists(store.path_of_best(), ignored))
    return note + "; this run's best are --adapter " + store.path_of_best();
  if (const auto latest = store.latest()) note += "; this run's last are --adapter " + *latest;
  return note;
}

}  // namespace permafrost
