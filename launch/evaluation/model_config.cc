#include "launch/evaluation/model_config.h"

#include "core/base/check.h"
#include "launch/training/checkpoint.h"
#include "launch/training/name_patterns.h"

namespace permafrost {

config::Resolved load_generating_config(const std::string& path, std::vector<std::string> overrides,
                                        const std::string& adapter) {
  if (!adapter.empty()) overrides.push_back("weights.adapter=" + adapter_file(adapter));
  config::Resolved resolved = config::load_config(path, overrides, check_name_patterns);
  if (!resolved.config.model().has_epalm())
    fail(ErrorKind::kConfig, "model: epalm expected, which generates texts from images; got ",
         resolved.config.model().has_vision_classifier() ? "vision_classifier" : "language_model");
  if (resolved.config.evaluation().data().task() == config::Data::CLASSES)
    fail(ErrorKind::kConfig, "evaluation.data.task: expected CAPTIONING or VQA, texts being generated; got CLASSES");
  return resolved;
}

std::string missing_adapter_note(const config::Config& config) {
  if (!config.weights().adapter().empty()) return {};
  return "adapter: no trained parameters were named (--adapter or weights.adapter), so those that training starts from "
         "are used";
}

}  // namespace permafrost
