#include "models/factory.h"

#include "models/epalm/epalm_model.h"

namespace permafrost {

namespace {

EpalmConfig::Prompt prompt_kind(config::Prompt::Kind kind) {
  switch (kind) {
    case config::Prompt::NONE:
      return EpalmConfig::Prompt::kNone;
    case config::Prompt::TABLE:
      return EpalmConfig::Prompt::kTable;
    case config::Prompt::MLP:
      return EpalmConfig::Prompt::kMlp;
  }
  fail(ErrorKind::kInternal, "model.epalm.prompt.kind: unknown value ", static_cast<int>(kind));
}

std::optional<AdaptorConfig> adaptor_config(const config::Adapter& adapter) {
  AdaptorConfig result;
  result.factor = adapter.factor();
  result.layer_norm = adapter.layer_norm();
  result.location = adapter.location() == config::Adapter::MLP ? AdaptorLocation::kMlp : AdaptorLocation::kAttention;
  switch (adapter.kind()) {
    case config::Adapter::NONE:
      return std::nullopt;
    case config::Adapter::NORMAL:
      result.kind = AdaptorKind::kNormal;
      return result;
    case config::Adapter::PARALLEL:
      result.kind = AdaptorKind::kParallel;
      return result;
    case config::Adapter::SCALED_PARALLEL:
      result.kind = AdaptorKind::kScaledParallel;
      return result;
  }
  fail(ErrorKind::kInternal, "adapter.kind: unknown value ", static_cast<int>(adapter.kind()));
}

}  // namespace

VitConfig vit_config(const config::Vit& vit) {
  VitConfig c;
  c.image_size = vit.image_size();
  c.patch = vit.patch();
  c.dim = vit.dim();
  c.depth = vit.depth();
  c.heads = vit.heads();
  c.mlp_dim = vit.mlp_dim();
  c.eps = static_cast<float>(vit.layer_norm_eps());
  return c;
}

OptConfig opt_config(const config::Opt& opt) {
  OptConfig c;
  c.vocab = opt.vocab();
  c.layers = opt.layers();
  c.hidden = opt.hidden();
  c.heads = opt.heads();
  c.ffn = opt.ffn();
  c.word_embed_proj_dim = opt.word_embed_proj_dim();
  c.norm_before = opt.do_layer_norm_before();
  c.final_norm = opt.final_layer_norm();
  c.max_positions = opt.max_positions();
  c.eps = static_cast<float>(opt.layer_norm_eps());
  c.dropout = static_cast<float>(opt.dropout());
  return c;
}

EpalmConfig epalm_config(const config::Config& config) {
  if (!config.model().has_epalm()) fail(ErrorKind::kConfig, "model: expected epalm; got another kind or none");
  const config::Epalm& epalm = config.model().epalm();
  EpalmConfig c;
  c.vision = vit_config(epalm.vision());
  c.text = opt_config(epalm.text());
  c.shared_connector = epalm.connector() == config::Epalm::SHARED;
  c.features = epalm.features();
  c.start = epalm.start_layer();
  c.end = epalm.end_layer();
  c.prompt = prompt_kind(epalm.prompt().kind());
  c.prompt_length = epalm.prompt().length();
  c.adaptor = adaptor_config(epalm.adapter());
  c.vis_row = config.quirks().vis_row() == config::Quirks::PUBLISHED ? EpalmConfig::VisRow::kPublished
                                                                     : EpalmConfig::VisRow::kCausal;
  c.padding =
      epalm.padding() == config::Epalm::PUBLISHED ? EpalmConfig::Padding::kPublished : EpalmConfig::Padding::kClean;
  c.frozen_dropout = config.quirks().frozen_dropout();
  c.label_smoothing = static_cast<float>(config.loss().label_smoothing());
  c.check();
  return c;
}

VisionClassifierConfig vision_classifier_config(const config::Config& config) {
  if (!config.model().has_vision_classifier())
    fail(ErrorKind::kConfig, "model: expected vision_classifier; got another kind or none");
  const config::VisionClassifier& model = config.model().vision_classifier();
  VisionClassifierConfig c;
  c.vision = vit_config(model.vision());
  c.labels = model.labels();
  c.classes = model.classes();
  c.supervised_blocks = model.supervised_blocks();
  c.label_smoothing = static_cast<float>(config.loss().label_smoothing());
  c.check();
  return c;
}

LanguageModelConfig language_model_config(const config::Config& config) {
  if (!config.model().has_language_model())
    fail(ErrorKind::kConfig, "model: expected language_model; got another kind or none");
  LanguageModelConfig c;
  c.text = opt_config(config.model().language_model().text());
  c.adaptor = adaptor_config(config.model().language_model().adapter());
  c.label_smoothing = static_cast<float>(config.loss().label_smoothing());
  c.check();
  return c;
}

ProjectorConfig projector_config(const config::Config& config) {
  if (!config.model().has_projector()) fail(ErrorKind::kConfig, "model: expected projector; got another kind or none");
  const config::Projector& model = config.model().projector();
  ProjectorConfig c;
  c.vision = vit_config(model.vision());
  c.text = opt_config(model.text());
  c.kind = model.kind() == config::Projector::LINEAR ? ProjectorConfig::Kind::kLinear : ProjectorConfig::Kind::kMlp;
  c.label_smoothing = static_cast<float>(config.loss().label_smoothing());
  c.check();
  return c;
}

std::unique_ptr<const Model> make_model(const config::Config& config) {
  switch (config.model().kind_case()) {
    case config::Model::kEpalm:
      return std::make_unique<EpalmModel>(epalm_config(config));
    case config::Model::kVisionClassifier:
      return std::make_unique<VisionClassifier>(vision_classifier_config(config));
    case config::Model::kLanguageModel:
      return std::make_unique<LanguageModel>(language_model_config(config));
    case config::Model::kProjector:
      return std::make_unique<ProjectorModel>(projector_config(config));
    case config::Model::KIND_NOT_SET:
      break;
  }
  fail(ErrorKind::kConfig, "model: expected one of epalm, vision_classifier, language_model, projector; got none");
}

LossWeighting loss_weighting(const config::Loss& loss) {
  LossWeighting weighting;
  weighting.kind =
      loss.kind() == config::Loss::SAMPLE_SUM ? LossWeighting::Kind::kSampleSum : LossWeighting::Kind::kTokenMean;
  weighting.scale = loss.scale();
  return weighting;
}

std::vector<FreezeRule> freeze_rules(const config::Config& config) {
  std::vector<FreezeRule> rules;
  for (const config::FreezeRule& rule : config.freeze()) rules.push_back({rule.pattern(), rule.trainable()});
  for (const FreezeRule& rule : make_model(config)->freezing()) rules.push_back(rule);
  return rules;
}

}  // namespace permafrost
