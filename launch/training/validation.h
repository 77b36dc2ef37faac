#pragma once
#include <memory>
#include <optional>
#include <string>

#include "configs/config.pb.h"
#include "data/factory.h"
#include "launch/runtime.h"
#include "launch/training/best_so_far.h"
#include "launch/training/input_filler.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor.h"

namespace permafrost {

/// What a measurement runs on: programs and memory of a training run, whose state it leaves as it is.
struct MeasureOn {
  Runtime& runtime;
  const Plan& plan;
  const Model& model;
  Executor& executor;
  InputFiller& filler;
};

/// Throws kData unless images have as many class labels as the model predicts, if it does. who: the path of the data.
void require_labels(std::string_view who, const OpenedData& data, const Model& model);

/// Sums over samples, nothing trained.
struct MeasuredSums {
  double nats = 0;      ///< loss of all targets
  int64_t targets = 0;  ///< tokens or class labels that are predicted
  int64_t correct = 0;  ///< class labels that have the largest logit (the first of equal ones); 0 for texts
  int64_t samples = 0;
  double nats_per_target() const { return nats / static_cast<double>(targets); }
};

/// Collective over the first `samples` samples (0 = all) in the order of `loader`, of which global batch, slots and
/// what depends on them are set here. exchange_images: every text next to the image of another sample; those for which
/// none is found are left out. The same bits on any number of ranks: a loss per micro-batch, added in global order.
/// Errors: kData when there is nothing to predict, and what the loader throws.
MeasuredSums measure_sums(const MeasureOn& on, const OpenedData& data, LoaderConfig loader, int64_t samples,
                          bool exchange_images);

/// Of labels (B, n) the last `own` of each row (those of the last supervised block) whose logit is the largest of its
/// classes, the first of equal ones. logits: (B, n, classes) f32.
int64_t count_correct(const Tensor& logits, const Tensor& labels, int64_t own);

/// A value of a metric, and how many samples it was measured on.
struct MeasuredValue {
  double value = 0;
  int64_t samples = 0;
};

/// What validation asks for a value: one metric over evaluation.data with the weights as they are now.
class ValidationMeasure {
 public:
  virtual ~ValidationMeasure() = default;
  /// Collective; the same value on all ranks, and on any number of them.
  virtual MeasuredValue measure() = 0;
  /// SHA-256 of what values depend on besides metric and weights: values of different ones are not compared.
  virtual std::string measured_on() const = 0;
  /// For the log at the start.
  virtual std::vector<std::string> notes() const { return {}; }
};

/// The measure of a config.validation.metric that comes from the programs that train; null for others
/// (launch/evaluation/generated_measure.h), and without validation. Opens the data. What `on` refers to must outlive
/// it. Errors: kData, kConfig.
std::unique_ptr<ValidationMeasure> make_program_measure(const config::Config& config, const MeasureOn& on);

}  // namespace permafrost
