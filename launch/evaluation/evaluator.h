#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/config.pb.h"
#include "data/factory.h"
#include "data/metrics/result_files.h"
#include "data/metrics/score_results.h"
#include "launch/evaluation/generator.h"
#include "launch/evaluation/image_groups.h"
#include "launch/runtime.h"

namespace permafrost {

/// What a model said about one image (captioning) or to one question.
struct EvaluatedText {
  Result result;       ///< id as its files write it, and the text
  int64_t image = 0;   ///< in the dataset: what was asked about
  int64_t shown = 0;   ///< in the dataset: what the model saw; another one with exchanged images
  int64_t sample = 0;  ///< in the dataset; in captioning the first of the image
  bool ended = false;
  double score = 0;
  std::optional<bool> correct;  ///< exact_match; none where the dataset has no answer
};

/// The texts about images that have one value of evaluation.group_by.
struct EvaluationGroup {
  std::string value;  ///< ImageGroups::Group
  bool is_true = false;
  std::vector<EvaluatedText> texts;
  std::optional<ScoreReport> scores;  ///< as of all; document frequencies of CIDEr are those of the group
};

struct Evaluation {
  std::vector<EvaluatedText> texts;  ///< in the order of the dataset, without those whose image cannot be used
  int64_t left_out = 0;
  /// Captions: BLEU, ROUGE-L, CIDEr and exact_match with any caption of the image. Questions with answers: soft_label,
  /// normalized_exact_match, exact_match by the dataset's answers. None where the dataset has no answers.
  std::optional<ScoreReport> scores;
  /// That have texts, in the order of ImageGroups; empty without group_by, and with the weights of a training run.
  std::vector<EvaluationGroup> groups;
  double value(std::string_view metric) const;  ///< Errors: kConfig when the report lacks it
};

/// The data of an evaluation: evaluation.data with the transform EVAL, nothing shuffled, questions without answers
/// allowed.
std::unique_ptr<OpenedData> open_evaluation_data(const config::Config& config, int threads);

/// Generates for a whole dataset on all ranks and scores the texts. Items are images in captioning, else questions;
/// batches of them are functions of their number alone and go to ranks in turn, so texts and scores are the same bits
/// on any number of ranks.
class Evaluator {
 public:
  /// With weights of its own (config.weights). Collective. Errors: kConfig (decoding that does not fit the data, a
  /// group_by that no image has), kData, kWeights, kStorage.
  Evaluator(const config::Config& config, Runtime& runtime);
  /// With the weights of a training run, as they are at each call of run; memory and plan must outlive the evaluator.
  /// Collective.
  Evaluator(const config::Config& config, Runtime& runtime, const StepMemory& lender, const Plan& lender_plan);
  ~Evaluator();

  /// Collective. samples: items looked at, from the first; 0 = all. exchanged: each with the image of another item (the
  /// next one, from half the items on, that shows another image). Errors: kData naming an image that cannot be used
  /// (image_policy FAIL), when no other image is there to exchange, or when nothing is left; kConfig when ranks
  /// computed attention differently.
  Evaluation run(int64_t samples, bool exchanged);

  /// For result files, which know a text by the id of its image or question alone. samples: as in run. Errors: kData
  /// naming an id that two of them have (parts of a mix may use the same ones).
  void require_distinct_ids(int64_t samples) const;
  /// Names of what Evaluation::scores has where there are answers.
  std::vector<std::string_view> metrics() const;
  /// Whether the dataset has an answer to each of its questions, or a caption of each image.
  bool all_answered() const;

  const OpenedData& data() const { return *data_; }
  const Plan& plan() const { return plan_; }
  /// What was loaded and decided, for the log.
  std::vector<std::string> notes() const;
  ResultKind result_kind() const;
  /// What would have been right, by the dataset: the captions of its image, or answers, the best first; may be empty.
  std::vector<std::string> expected(const EvaluatedText& text) const;
  const DecodeOptions& decode_options() const { return loader_.decode; }

 private:
  struct Item {
    int64_t sample = 0, image = 0, shown = 0;
  };
  Evaluator(const config::Config& config, Runtime& runtime, const Plan* lender);
  void list_items();
  std::vector<Item> chosen_items(int64_t samples, bool exchanged) const;
  SampleId published_id(const Item& item) const;
  void evaluate_batch(std::span<const Item> items, int64_t first, std::vector<int64_t>& results);
  std::vector<int32_t> prompt_of(int64_t sample) const;
  AnnotationKind annotation_kind() const;
  std::optional<ScoreReport> scores_of(const std::vector<EvaluatedText>& texts) const;
  void score(Evaluation& evaluation) const;

  const config::Config& config_;
  Runtime& runtime_;
  std::unique_ptr<OpenedData> data_;
  TextTask task_;
  std::vector<Item> items_;
  std::vector<std::vector<int64_t>> samples_of_image_;  // captioning
  std::optional<ImageGroups> groups_;
  GenerationSetup setup_;
  Plan plan_;
  std::unique_ptr<Generator> generator_;
  LoaderConfig loader_;  // decoding and transform of images
};

}  // namespace permafrost
