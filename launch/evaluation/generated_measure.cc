#include "launch/evaluation/generated_measure.h"

#include "launch/evaluation/evaluator.h"

namespace permafrost {

namespace {

class GeneratedMeasure final : public ValidationMeasure {
 public:
  GeneratedMeasure(const config::Config& config, Runtime& runtime, const Trainer& trainer)
      : validation_(config.validation()), evaluator_(config, runtime, trainer.memory(), trainer.plan()) {}

  MeasuredValue measure() override {
    const Evaluation evaluation = evaluator_.run(validation_.samples(), false);
    const bool vqa = validation_.metric() == config::Validation::VQA_ACCURACY;
    const std::string name = vqa ? "soft_label" : metric_name(validation_.metric());
    return {evaluation.value(name), std::ssize(evaluation.texts)};
  }
  std::vector<std::string> notes() const override { return evaluator_.notes(); }

 private:
  const config::Validation& validation_;
  Evaluator evaluator_;
};

}  // namespace

std::unique_ptr<ValidationMeasure> make_generated_measure(const config::Config& config, Runtime& runtime,
                                                          const Trainer& trainer) {
  if (config.validation().every_steps() == 0 || !is_generated(config.validation().metric())) return nullptr;
  return std::make_unique<GeneratedMeasure>(config, runtime, trainer);
}

}  // namespace permafrost
