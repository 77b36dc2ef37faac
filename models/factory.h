#pragma once
#include <memory>
#include <vector>

#include "configs/config.pb.h"
#include "core/graph/freezing.h"
#include "models/epalm/epalm.h"
#include "models/epalm/inputs.h"
#include "models/language_model.h"
#include "models/model.h"
#include "models/projector.h"
#include "models/vision_classifier.h"

namespace permafrost {

/// From a resolved configuration (sizes expanded, validated) to what models are built from.
VitConfig vit_config(const config::Vit& vit);
OptConfig opt_config(const config::Opt& opt);
/// Errors: kConfig when the model is not eP-ALM, and from EpalmConfig::check.
EpalmConfig epalm_config(const config::Config& config);
VisionClassifierConfig vision_classifier_config(const config::Config& config);
LanguageModelConfig language_model_config(const config::Config& config);
ProjectorConfig projector_config(const config::Config& config);
LossWeighting loss_weighting(const config::Loss& loss);

/// The model that config.model names. Errors: kConfig where it names none, or from the model's own check.
std::unique_ptr<const Model> make_model(const config::Config& config);

/// The rules of the configuration, then those of the model: what no rule names stays as its model says.
std::vector<FreezeRule> freeze_rules(const config::Config& config);

}  // namespace permafrost
