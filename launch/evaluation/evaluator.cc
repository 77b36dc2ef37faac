#include "launch/evaluation/evaluator.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <unordered_set>

#include "core/base/narrow.h"
#include "data/loader/prepare_image.h"
#include "data/metrics/vqa.h"
#include "launch/evaluation/published_text.h"
#include "launch/training/agreement.h"
#include "launch/training/device_memory.h"
#include "models/factory.h"

namespace permafrost {

namespace {

config::Data plain_data(const config::Config& config) {
  config::Data data = config.evaluation().data();
  data.set_transform(config::Data::EVAL);
  data.set_shuffle(false);
  data.set_long_text(config::LongText::TRUNCATE);  // texts are not computed, prompts are not cut
  return data;
}

TextTask task_of(const config::Config& config) {
  const TextTask task = text_task(config.evaluation().data());
  if (task == TextTask::kClasses)
    fail(ErrorKind::kConfig, "evaluation.data.task: CAPTIONING or VQA expected, texts being generated; got CLASSES");
  return task;
}

/// Numbers of all ranks, those of rank 0 first. Collective.
std::vector<int64_t> gather_numbers(const std::vector<int64_t>& mine, Group& world) {
  std::vector<int64_t> counts(static_cast<size_t>(world.size()));
  int64_t count = std::ssize(mine);
  world.all_gather(flat(std::span(&count, 1)), flat(std::span(counts)), {}, StreamView::caller(), "sizes of texts")
      .wait();
  int64_t total = 0;
  for (const int64_t each : counts) total += each;
  std::vector<int64_t> all(static_cast<size_t>(total)), part = mine;
  world.all_gather(flat(std::span(part)), flat(std::span(all)), counts, StreamView::caller(), "texts").wait();
  return all;
}

/// One item's outcome as numbers: item, 1 if its image could be used, ended, score, tokens.
void append(std::vector<int64_t>& numbers, int64_t item, const FoundText* text) {
  numbers.insert(numbers.end(),
                 {item, text != nullptr, text && text->ended, std::bit_cast<int64_t>(text ? text->score : 0.0),
                  text ? std::ssize(text->tokens) : 0});
  if (text) numbers.insert(numbers.end(), text->tokens.begin(), text->tokens.end());
}

bool matches_any(const std::string& text, const std::vector<std::string>& references) {
  return std::ranges::any_of(references, [&](const std::string& reference) { return exact_match(text, reference); });
}

void check_room(const Plan& plan, const Plan& lender, int64_t available_bytes) {
  const int64_t ranks = plan.world.most_ranks_of_a_node();
  const bool on_gpu = plan.world.device == DeviceKind::kCuda;
  const int64_t own = on_gpu ? plan.host_memory.own() : plan.memory.own() - plan.memory.working;
  const int64_t needed = lender.host_bytes_of_node() + ranks * (own + process_constant_bytes(plan.world.device));
  if (needed > available_bytes)
    fail(ErrorKind::kConfig, "memory: ", ranks, " ranks of a node need ", gib_text(needed),
         " for training and for generating texts beside it; got ", gib_text(available_bytes),
         ". A smaller evaluation.batch, fewer evaluation.decoding.beams or new tokens shrink it");
}

}  // namespace

double Evaluation::value(std::string_view metric) const {
  std::string known;
  if (scores)
    for (const MetricValue& score : scores->scores) {
      if (score.name == metric) return score.value;
      known.append(known.empty() ? "" : ", ").append(score.name);
    }
  fail(ErrorKind::kConfig, "evaluation: the data have the metrics ", known.empty() ? "(none: no answers)" : known,
       "; got ", metric);
}

std::unique_ptr<OpenedData> open_evaluation_data(const config::Config& config, int threads) {
  OpenOptions options;
  options.model_vocab = config.model().epalm().text().vocab();
  options.threads = threads;
  options.decode_threads = decode_threads(config, threads);
  options.needs_answers = false;
  options.whole = true;
  return std::make_unique<OpenedData>(plain_data(config), options);
}

Evaluator::Evaluator(const config::Config& config, Runtime& runtime, const Plan* lender)
    : config_(config),
      runtime_(runtime),
      data_(open_evaluation_data(config, runtime.pool.threads())),
      task_(task_of(config)) {
  list_items();
  if (lender) groups_.reset();  // who trains looks at one score of all; that there are groups has been checked
  require_same_samples(runtime.world, "evaluation.data", data_->texts.hash());
  plan_ = agreed_plan(config, runtime, [&](const PlanChoices& choices) {
    Plan plan = generation_plan(config, choices, setup_, lender);
    if (lender) {
      check_room(plan, *lender, node_memory_limit(config, choices));
      check_device_memory_beside(plan, *lender, choices.device_memory_bytes);
    }
    return plan;
  });
}

Evaluator::Evaluator(const config::Config& config, Runtime& runtime) : Evaluator(config, runtime, nullptr) {
  generator_ = std::make_unique<Generator>(config, runtime, setup_, plan_);
}

Evaluator::Evaluator(const config::Config& config, Runtime& runtime, const StepMemory& lender, const Plan& lender_plan)
    : Evaluator(config, runtime, &lender_plan) {
  generator_ = std::make_unique<Generator>(config, runtime, setup_, plan_, lender, lender_plan);
}

Evaluator::~Evaluator() = default;

std::vector<std::string> Evaluator::notes() const {
  std::vector<std::string> notes = generator_->notes();
  if (!setup_.note.empty()) notes.push_back(setup_.note);
  const MemoryPlan& m = plan_.memory;
  const size_t gathers = plan_.programs[1].gathers.size();
  notes.push_back(concat("texts: ", plan_.world.ranks, " ranks x ", plan_.world.threads, " threads, ",
                         to_string(plan_.compute), ", ", static_cast<double>(m.total() >> 10) / 1024,
                         " MiB per rank forecast, of it ", static_cast<double>(m.state >> 10) / 1024,
                         " MiB for texts in the making",
                         gathers > 0 ? concat("; frozen weights gathered ", gathers, " times per token") : ""));
  return notes;
}

ResultKind Evaluator::result_kind() const {
  return task_ == TextTask::kCaptions ? ResultKind::kCaptions : ResultKind::kAnswers;
}

std::vector<int32_t> Evaluator::prompt_of(int64_t sample) const {
  if (std::optional<TextPieces> packed = data_->dataset->packed_text(sample)) return packed->prompt;
  const Sample read = data_->dataset->sample(sample);
  return task_ == TextTask::kCaptions ? data_->tokenizer->prefix() : question_ids(*data_->tokenizer, read.question);
}

/// Images with captions, or questions, in the order of the dataset; and what follows from the longest prompt.
void Evaluator::list_items() {
  const Dataset& dataset = *data_->dataset;
  samples_of_image_.resize(static_cast<size_t>(dataset.images()));
  int64_t longest = 1;
  for (int64_t s = 0; s < dataset.size(); ++s) {
    const int64_t image = dataset.sample(s).image;
    auto& of_image = samples_of_image_[static_cast<size_t>(image)];
    of_image.push_back(s);
    if (task_ == TextTask::kCaptions && of_image.size() > 1) continue;
    items_.push_back({s, image, image});
    longest = std::max(longest, std::ssize(prompt_of(s)));
  }
  if (const std::string& field = config_.evaluation().group_by(); !field.empty()) {
    std::vector<int64_t> images;
    for (const Item& item : items_) images.push_back(item.image);
    groups_.emplace(dataset, images, field);
  }
  setup_ = generation_setup(config_, longest, data_->tokenizer->end_id(), data_->tokenizer->pad_id());
  loader_ = loader_config(plain_data(config_), *data_, image_size(config_), setup_.shape.batch, setup_.shape.batch);
}

std::vector<Evaluator::Item> Evaluator::chosen_items(int64_t samples, bool exchanged) const {
  std::vector<Item> chosen = items_;
  if (samples > 0 && samples < std::ssize(chosen)) chosen.resize(static_cast<size_t>(samples));
  if (!exchanged) return chosen;
  const size_t count = chosen.size();
  for (size_t i = 0; i < count; ++i) {
    size_t tries = 0;
    while (tries < count && chosen[(i + count / 2 + tries) % count].image == chosen[i].image) ++tries;
    if (tries == count)
      fail(ErrorKind::kData, "evaluation: exchanged images need samples of at least two images; got ", count,
           " of one");
    chosen[i].shown = chosen[(i + count / 2 + tries) % count].image;
  }
  return chosen;
}

SampleId Evaluator::published_id(const Item& item) const {
  if (task_ == TextTask::kCaptions) return {std::to_string(data_->dataset->image_id(item.image)), true};
  const Sample sample = data_->dataset->sample(item.sample);
  return {sample_name(sample), sample.name.empty()};
}

void Evaluator::require_distinct_ids(int64_t samples) const {
  std::unordered_set<std::string> ids;
  for (const Item& item : chosen_items(samples, false)) {
    const SampleId id = published_id(item);
    if (!ids.insert(id.text).second)
      fail(ErrorKind::kData, "eval: --out needs one id for each text; got id ", id.text,
           " twice in evaluation.data.mix. Evaluate its parts one by one");
  }
}

bool Evaluator::all_answered() const {
  const Dataset& dataset = *data_->dataset;
  return task_ == TextTask::kCaptions ||
         std::ranges::none_of(items_, [&](const Item& item) { return dataset.sample(item.sample).answers.empty(); });
}

Evaluation Evaluator::run(int64_t samples, bool exchanged) {
  const std::vector<Item> items = chosen_items(samples, exchanged);
  const int64_t count = std::ssize(items), batch = setup_.shape.batch, ranks = runtime_.size();
  std::vector<int64_t> mine;
  for (int64_t round = 0; round * ranks * batch < count; ++round) {
    const int64_t begin = std::min(count, (round * ranks + runtime_.rank()) * batch);
    const int64_t end = std::min(count, begin + batch);
    evaluate_batch(std::span(items).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)), begin, mine);
  }
  generator_->require_same_attention();
  const std::vector<int64_t> all = gather_numbers(mine, runtime_.world);
  std::vector<const int64_t*> of_item(items.size(), nullptr);
  for (size_t at = 0; at < all.size(); at += 5 + static_cast<size_t>(all[at + 4]))
    of_item[static_cast<size_t>(all[at])] = &all[at];

  Evaluation evaluation;
  for (size_t i = 0; i < items.size(); ++i) {
    const int64_t* numbers = of_item[i];
    PERMAFROST_CHECK(numbers != nullptr, "evaluation: item ", i, " was not computed by any rank");
    if (numbers[1] == 0) {
      ++evaluation.left_out;
      continue;
    }
    const Item& item = items[i];
    std::vector<int32_t> tokens;
    for (int64_t t = 0; t < numbers[4]; ++t) tokens.push_back(narrow<int32_t>(numbers[5 + t]));
    EvaluatedText& text = evaluation.texts.emplace_back();
    text.result.id = published_id(item);
    text.result.text = published_text(*data_->tokenizer, task_, prompt_of(item.sample), tokens);
    text.image = item.image;
    text.shown = item.shown;
    text.sample = item.sample;
    text.ended = numbers[2] != 0;
    text.score = std::bit_cast<double>(numbers[3]);
  }
  if (evaluation.texts.empty())
    fail(ErrorKind::kData, "evaluation: at least one sample with a usable image expected; got none of ", items.size());
  score(evaluation);
  return evaluation;
}

void Evaluator::evaluate_batch(std::span<const Item> items, int64_t first, std::vector<int64_t>& results) {
  const int64_t floats = generator_->image_floats();
  std::vector<float> pixels(items.size() * static_cast<size_t>(floats));
  std::vector<uint8_t> usable(items.size(), 1);
  std::vector<PrepareScratch> scratch(static_cast<size_t>(runtime_.pool.threads()));
  runtime_.pool.run(std::ssize(items), [&](int64_t i, int thread) {
    try {
      prepare_image(*data_->dataset, items[static_cast<size_t>(i)].shown, loader_.decode, loader_.transform, 0, 0, 0,
                    scratch[static_cast<size_t>(thread)], pixels.data() + i * floats);
    } catch (const Error& error) {
      if (loader_.image_policy != ImagePolicy::kSkip || error.kind() != ErrorKind::kData) throw;
      usable[static_cast<size_t>(i)] = 0;
    }
  });
  std::vector<std::vector<int32_t>> prompts;
  for (const Item& item : items) prompts.push_back(prompt_of(item.sample));
  const std::vector<FoundText> found = generator_->generate(prompts, pixels);
  for (size_t i = 0; i < items.size(); ++i)
    append(results, first + narrow<int64_t>(i), usable[i] ? &found[i] : nullptr);
}

std::vector<std::string> Evaluator::expected(const EvaluatedText& text) const {
  const Dataset& dataset = *data_->dataset;
  std::vector<std::string> all;
  if (task_ == TextTask::kCaptions) {
    for (const int64_t s : samples_of_image_[static_cast<size_t>(text.image)])
      all.emplace_back(dataset.sample(s).caption);
    return all;
  }
  const Sample sample = dataset.sample(text.sample);
  std::vector<Answer> answers(sample.answers.begin(), sample.answers.end());
  std::ranges::stable_sort(answers, std::greater(), &Answer::score);
  for (const Answer& answer : answers) all.emplace_back(answer.text);
  return all;
}

AnnotationKind Evaluator::annotation_kind() const {
  return task_ == TextTask::kCaptions ? AnnotationKind::kCocoCaptions : AnnotationKind::kVlt5;
}

std::vector<std::string_view> Evaluator::metrics() const {
  Annotations annotations;
  annotations.kind = annotation_kind();
  std::vector<std::string_view> names = metrics_of(annotations);
  if (task_ == TextTask::kCaptions) names.push_back("exact_match");
  return names;
}

/// Of the texts to which the dataset has an answer; none where it has not one. Ids are places among them: those that
/// are published need not be distinct in a mix.
std::optional<ScoreReport> Evaluator::scores_of(const std::vector<EvaluatedText>& texts) const {
  ResultFile results{result_kind(), {}};
  Annotations annotations;
  annotations.kind = annotation_kind();
  annotations.file = "evaluation.data";
  double exact = 0;
  for (const EvaluatedText& text : texts) {
    if (!text.correct) continue;
    exact += *text.correct;
    const SampleId id{std::to_string(results.results.size()), true};
    results.results.push_back({id, text.result.text});
    if (task_ == TextTask::kCaptions) {
      annotations.images.push_back({id, expected(text)});
      continue;
    }
    QuestionAnnotation& question = annotations.questions.emplace_back();
    question.id = id;
    for (const Answer& answer : data_->dataset->sample(text.sample).answers)
      question.labels[std::string(answer.text)] = static_cast<double>(answer.score);
  }
  if (results.results.empty()) return std::nullopt;
  ScoreReport report = score_results(annotations, results);
  if (task_ == TextTask::kCaptions)
    report.scores.push_back({"exact_match", exact / static_cast<double>(results.results.size())});
  return report;
}

void Evaluator::score(Evaluation& evaluation) const {
  for (EvaluatedText& text : evaluation.texts) {
    const std::vector<std::string> right = expected(text);
    if (!right.empty()) text.correct = matches_any(text.result.text, right);
  }
  evaluation.scores = scores_of(evaluation.texts);
  if (!groups_) return;
  for (const ImageGroups::Group& group : groups_->groups())
    evaluation.groups.push_back({group.value, group.is_true, {}, {}});
  for (const EvaluatedText& text : evaluation.texts)
    evaluation.groups[groups_->group_of(text.image)].texts.push_back(text);
  std::erase_if(evaluation.groups, [](const EvaluationGroup& group) { return group.texts.empty(); });
  for (EvaluationGroup& group : evaluation.groups) group.scores = scores_of(group.texts);
}

}  // namespace permafrost
