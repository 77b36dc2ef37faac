#include "configs/validate_model.h"

#include "configs/section.h"
#include "core/base/check.h"

namespace permafrost::config {

namespace {

bool check_vit(const Vit& vit, const Section& s) {
  bool good = s.given(vit.has_patch(), "patch", vit.patch(), 1, 1024);
  good &= s.given(vit.has_dim(), "dim", vit.dim(), 1, kMostWidth);
  good &= s.given(vit.has_depth(), "depth", vit.depth(), 1, 1024);
  good &= s.given(vit.has_heads(), "heads", vit.heads(), 1, 1024);
  good &= s.given(vit.has_mlp_dim(), "mlp_dim", vit.mlp_dim(), 1, kMostWidth);
  good &= s.whole("image_size", vit.image_size(), 1, 16384);
  s.real("layer_norm_eps", vit.layer_norm_eps(), 1e-12, 1e-2);
  if (!good) return false;
  s.multiple("image_size", vit.image_size(), "patch", vit.patch());
  s.multiple("dim", vit.dim(), "heads", vit.heads());
  return true;
}

bool check_opt(const Opt& opt, const Section& s) {
  bool good = s.given(opt.has_vocab(), "vocab", opt.vocab(), 1, 1 << 24);
  good &= s.given(opt.has_layers(), "layers", opt.layers(), 1, 1024);
  good &= s.given(opt.has_hidden(), "hidden", opt.hidden(), 1, kMostWidth);
  good &= s.given(opt.has_heads(), "heads", opt.heads(), 1, 1024);
  good &= s.given(opt.has_ffn(), "ffn", opt.ffn(), 1, kMostWidth);
  good &= s.given(opt.has_word_embed_proj_dim(), "word_embed_proj_dim", opt.word_embed_proj_dim(), 1, kMostWidth);
  if (!opt.has_do_layer_norm_before()) s.problems().expected(s.at("do_layer_norm_before"), "true or false", "none");
  if (!opt.has_final_layer_norm()) s.problems().expected(s.at("final_layer_norm"), "true or false", "none");
  good &= s.whole("max_positions", opt.max_positions(), 1, 1 << 20);
  s.real("layer_norm_eps", opt.layer_norm_eps(), 1e-12, 1e-2);
  s.below("dropout", opt.dropout(), 0, 1);
  if (!good) return false;
  s.multiple("hidden", opt.hidden(), "heads", opt.heads());
  return true;
}

/// s: the section that has `text`; image_tokens: positions that are taken before the text begins.
void check_positions(const Config& config, const Opt& text, const Section& s, int64_t image_tokens = 0) {
  const int64_t room = text.max_positions() - image_tokens;
  if (config.data().max_text_tokens() <= room) return;
  const std::string less = image_tokens > 0 ? concat(" less ", image_tokens, " patches of an image") : "";
  s.problems().expected("data.max_text_tokens", concat("at most ", s.at("text.max_positions"), less, " = ", room),
                        config.data().max_text_tokens());
}

/// s: the section that has `adapter`.
void check_adapter(const Adapter& adapter, const Opt& text, const Section& s) {
  if (adapter.kind() != Adapter::NONE) s.whole("adapter.factor", adapter.factor(), 1, text.hidden());
}

void check_epalm(const Config& config, const Section& s) {
  const Epalm& epalm = config.model().epalm();
  const bool vit = check_vit(epalm.vision(), Section(s.at("vision"), s.problems()));
  const bool opt = check_opt(epalm.text(), Section(s.at("text"), s.problems()));
  if (vit) s.whole("features", epalm.features(), 1, epalm.vision().depth());
  if (opt) {
    const int layers = epalm.text().layers();
    const bool start = s.given(epalm.has_start_layer(), "start_layer", epalm.start_layer(), 0, layers - 1);
    const bool end = s.given(epalm.has_end_layer(), "end_layer", epalm.end_layer(), 1, layers);
    if (start && end && epalm.start_layer() >= epalm.end_layer())
      s.problems().expected(s.at("end_layer"), concat("more than start_layer = ", epalm.start_layer()),
                            epalm.end_layer());
    check_positions(config, epalm.text(), s);
  }
  if (epalm.prompt().kind() != Prompt::NONE) s.whole("prompt.length", epalm.prompt().length(), 1, 4096);
  if (opt) check_adapter(epalm.adapter(), epalm.text(), s);
  if (config.quirks().frozen_dropout() && config.train().final_check().loss())
    s.problems().expected("train.final_check.loss",
                          "false with quirks.frozen_dropout (it would be measured under dropout)", "true");
  if (config.quirks().frozen_dropout() && epalm.text().dropout() == 0)
    s.problems().expected("quirks.frozen_dropout", "false where " + s.at("text.dropout") + " is 0", "true");
}

/// Which parts a model has, and what the texts or labels of its data must be.
struct ModelKind {
  const char* name;
  bool vision, text, labels;
};

ModelKind kind_of(const Model& model) {
  switch (model.kind_case()) {
    case Model::kVisionClassifier:
      return {"vision_classifier", true, false, true};
    case Model::kLanguageModel:
      return {"language_model", false, true, false};
    case Model::kEpalm:
      return {"epalm", true, true, false};
    case Model::kProjector:
      return {"projector", true, true, false};
    case Model::KIND_NOT_SET:
      break;  // said by check_model
  }
  fail(ErrorKind::kInternal, "model: expected one of the known kinds; got ", static_cast<int>(model.kind_case()));
}

void check_vision_classifier(const VisionClassifier& model, const Section& s) {
  if (check_vit(model.vision(), Section(s.at("vision"), s.problems())))
    s.whole("supervised_blocks", model.supervised_blocks(), 1, model.vision().depth());
  s.given(model.has_labels(), "labels", model.labels(), 1, 1024);
  s.given(model.has_classes(), "classes", model.classes(), 2, kMostWidth);
}

void check_language_model(const Config& config, const Section& s) {
  const LanguageModel& model = config.model().language_model();
  if (!check_opt(model.text(), Section(s.at("text"), s.problems()))) return;
  check_positions(config, model.text(), s);
  check_adapter(model.adapter(), model.text(), s);
}

void check_projector(const Config& config, const Section& s) {
  const Projector& model = config.model().projector();
  const bool vit = check_vit(model.vision(), Section(s.at("vision"), s.problems()));
  const bool opt = check_opt(model.text(), Section(s.at("text"), s.problems()));
  if (!vit || !opt) return;
  const int64_t side = model.vision().image_size() / model.vision().patch();
  check_positions(config, model.text(), s, side * side);
}

void check_task(const ModelKind& kind, Data::Task task, const std::string& path, Problems& problems) {
  if (kind.labels != (task == Data::CLASSES))
    problems.expected(path, concat(kind.labels ? "CLASSES" : "CAPTIONING or VQA", " where the model is ", kind.name),
                      Data::Task_Name(task));
}

/// What other sections say that this kind of model has no use for.
void check_what_fits(const Config& config, const ModelKind& kind, Problems& problems) {
  check_task(kind, config.data().task(), "data.task", problems);
  const auto refuse = [&](const char* field, const char* expected, bool given) {
    if (given) problems.expected(field, concat(expected, " where the model is ", kind.name), "true");
  };
  if (!config.model().has_epalm()) {
    refuse("quirks.frozen_dropout", "false", config.quirks().frozen_dropout());
    refuse("quirks.prompt_lr_ignored", "false", config.quirks().prompt_lr_ignored());
  }
  if (!kind.vision)
    refuse("train.final_check.exchanged_images", "false", config.train().final_check().exchanged_images());
  const auto no_file = [&](const char* field, const std::string& path) {
    if (!path.empty()) problems.expected(field, concat("none where the model is ", kind.name), concat("'", path, "'"));
  };
  if (!kind.vision) no_file("weights.vision", config.weights().vision());
  if (!kind.text) no_file("weights.text", config.weights().text());
  if (config.loss().label_smoothing() > 0 && config.train().final_check().loss())
    problems.expected("train.final_check.loss",
                      "false with loss.label_smoothing (it would be part of what is measured)", "true");
}

/// Metrics that a model can be measured by on such data, in words; empty where `metric` is one of them.
std::string other_metrics(const Config& config, Validation::Metric metric) {
  if (config.model().has_vision_classifier())
    return metric == Validation::LOSS || metric == Validation::CLASS_ACCURACY
               ? ""
               : "LOSS or CLASS_ACCURACY where the model is vision_classifier";
  if (!config.model().has_epalm())
    return metric == Validation::LOSS ? "" : concat("LOSS where the model is ", kind_of(config.model()).name);
  if (metric == Validation::LOSS || metric == Validation::EXACT_MATCH) return "";
  const bool vqa = config.evaluation().data().task() == Data::VQA;
  if (vqa && metric != Validation::VQA_ACCURACY)
    return "LOSS, EXACT_MATCH or VQA_ACCURACY where evaluation.data.task is VQA";
  const bool of_captions = metric == Validation::CIDER || metric == Validation::BLEU_4 || metric == Validation::ROUGE_L;
  if (!vqa && !of_captions)
    return "LOSS, EXACT_MATCH, CIDER, BLEU_4 or ROUGE_L where evaluation.data.task is CAPTIONING";
  return "";
}

}  // namespace

void check_model(const Config& config, Problems& problems) {
  switch (config.model().kind_case()) {
    case Model::kEpalm:
      check_epalm(config, Section("model.epalm", problems));
      break;
    case Model::kVisionClassifier:
      check_vision_classifier(config.model().vision_classifier(), Section("model.vision_classifier", problems));
      break;
    case Model::kLanguageModel:
      check_language_model(config, Section("model.language_model", problems));
      break;
    case Model::kProjector:
      check_projector(config, Section("model.projector", problems));
      break;
    case Model::KIND_NOT_SET:
      problems.expected("model", "one of: epalm, vision_classifier, language_model, projector", "none");
      return;
  }
  check_what_fits(config, kind_of(config.model()), problems);
}

void check_validation(const Config& config, Problems& problems) {
  const Section s("validation", problems);
  const Validation& validation = config.validation();
  s.whole("every_steps", validation.every_steps(), 0, kMost);
  s.whole("samples", validation.samples(), 0, kMost);
  if (s.whole("patience", validation.patience(), 0, 1 << 30) && validation.patience() > 0 &&
      validation.every_steps() == 0)
    s.problems().expected(s.at("patience"), "0 where validation.every_steps is 0", validation.patience());
  if (validation.every_steps() == 0 || config.model().kind_case() == Model::KIND_NOT_SET) return;
  const ModelKind kind = kind_of(config.model());
  check_task(kind, config.evaluation().data().task(), "evaluation.data.task", s.problems());
  if (const std::string others = other_metrics(config, validation.metric()); !others.empty())
    s.problems().expected(s.at("metric"), others, Validation::Metric_Name(validation.metric()));
  if (validation.metric() != Validation::LOSS) return;
  if (config.loss().label_smoothing() > 0)
    s.problems().expected(s.at("metric"), "another than LOSS with loss.label_smoothing (it would be part of it)",
                          "LOSS");
  if (config.quirks().frozen_dropout())
    s.problems().expected(s.at("metric"),
                          "another than LOSS with quirks.frozen_dropout (it would be measured under dropout)", "LOSS");
  const int tokens = config.evaluation().data().max_text_tokens();
  if (kind.text && tokens > config.data().max_text_tokens())
    s.problems().expected("evaluation.data.max_text_tokens",
                          concat("at most data.max_text_tokens = ", config.data().max_text_tokens(),
                                 " (validation runs the programs that train)"),
                          tokens);
}

}  // namespace permafrost::config
