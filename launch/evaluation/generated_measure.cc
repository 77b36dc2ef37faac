#include "launch/evaluation/generated_measure.h"

#include <algorithm>

#include "configs/json.h"
#include "core/base/sha256.h"
#include "launch/evaluation/evaluator.h"

namespace permafrost {

namespace {

class GeneratedMeasure final : public ValidationMeasure {
 public:
  GeneratedMeasure(const config::Config& config, Runtime& runtime, const Trainer& trainer)
      : validation_(config.validation()), evaluator_(config, runtime, trainer.memory(), trainer.plan()) {
    require_answers();
    const config::Decoding& decoding = config.evaluation().decoding();
    std::string all = concat(evaluator_.data().texts.hash(), ' ', validation_.samples(), ' ',
                             config::to_json(config.evaluation().decoding()));
    if (decoding.padding() == config::Decoding::PUBLISHED) all += concat(' ', config.evaluation().batch());
    measured_on_ = sha256(all.data(), all.size());
  }

  MeasuredValue measure() override {
    const Evaluation evaluation = evaluator_.run(validation_.samples(), false);
    const bool vqa = validation_.metric() == config::Validation::VQA_ACCURACY;
    const std::string name = vqa ? "soft_label" : metric_name(validation_.metric());
    return {evaluation.value(name), std::ssize(evaluation.texts)};
  }
  std::string measured_on() const override { return measured_on_; }
  std::vector<std::string> notes() const override { return evaluator_.notes(); }

 private:
  /// Better now than after the first steps.
  void require_answers() const {
    const Dataset& data = *evaluator_.data().dataset;
    const int64_t most = validation_.samples() > 0 ? std::min(validation_.samples(), data.size()) : data.size();
    if (evaluator_.result_kind() != ResultKind::kAnswers) return;
    for (int64_t s = 0; s < most; ++s)
      if (!data.sample(s).answers.empty()) return;
    fail(ErrorKind::kData, "validation.metric: ", metric_name(validation_.metric()),
         " needs answers in evaluation.data; got none to ", most, " questions");
  }

  const config::Validation& validation_;
  Evaluator evaluator_;
  std::string measured_on_;
};

}  // namespace

std::unique_ptr<ValidationMeasure> make_generated_measure(const config::Config& config, Runtime& runtime,
                                                          const Trainer& trainer) {
  if (config.validation().every_steps() == 0 || !is_generated(config.validation().metric())) return nullptr;
  return std::make_unique<GeneratedMeasure>(config, runtime, trainer);
}

}  // namespace permafrost
