#include "data/factory.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/base/check.h"
#include "data/datasets/caption_dataset.h"
#include "data/datasets/mixed_dataset.h"
#include "data/datasets/selection.h"
#include "data/datasets/vqa_dataset.h"
#include "data/shards/shard_dataset.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

fs::path below(const fs::path& root, const std::string& path) { return root / path; }  // an absolute path stays

TokenizerConfig tokenizer_config(const config::Data& data) {
  const config::Tokenizer& from = data.tokenizer();
  TokenizerConfig to;
  to.path = below(data.root(), from.root());
  if (!from.tokenizer_json().empty()) to.path /= from.tokenizer_json();
  to.vocabulary_name = from.vocab();
  to.merges_name = from.merges();
  if (data.task() == config::Data::VQA) to.added_tokens.emplace_back(kAnswerToken);
  switch (from.rules()) {
    case config::Tokenizer::OPT:
      to.rules = TokenizerRules::kOpt;
      break;
    case config::Tokenizer::GPT2:
      to.rules = TokenizerRules::kGpt2;
      break;
    case config::Tokenizer::ROBERTA:
      to.rules = TokenizerRules::kRoberta;
      break;
  }
  return to;
}

CaptionDatasetConfig caption_config(const config::Data& data, bool with_images) {
  CaptionDatasetConfig to;
  to.captions = below(data.root(), data.captions());
  to.images = below(data.root(), data.images());
  to.format = data.format() == config::Data::KARPATHY ? CaptionFormat::kKarpathy : CaptionFormat::kCoco;
  to.split = data.split();
  if (!with_images || data.image_policy() == config::ImagePolicy::SKIP) to.missing_images = MissingImages::kKeep;
  return to;
}

VqaDatasetConfig vqa_config(const config::Data& data, bool with_images) {
  VqaDatasetConfig to;
  switch (data.format()) {
    case config::Data::VLT5:
      to.format = VqaFormat::kVlt5;
      break;
    case config::Data::AOKVQA:
      to.format = VqaFormat::kAokvqa;
      break;
    case config::Data::GQA:
      to.format = VqaFormat::kGqa;
      break;
    default:
      to.format = VqaFormat::kVqav2;
  }
  to.questions = below(data.root(), data.questions());
  if (!data.annotations().empty()) to.annotations = below(data.root(), data.annotations());
  to.images = below(data.root(), data.images());
  to.image_name = data.image_name();
  if (!with_images || data.image_policy() == config::ImagePolicy::SKIP) to.missing_images = MissingImages::kKeep;
  return to;
}

std::unique_ptr<const Dataset> open_files(const config::Data& data, const OpenOptions& options,
                                          const Tokenizer* tokenizer) {
  switch (data.format()) {
    case config::Data::COCO:
    case config::Data::KARPATHY:
      return std::make_unique<CaptionDataset>(CaptionDataset::load(caption_config(data, options.with_images)));
    case config::Data::SHARDS:
      return ShardDataset::open({below(data.root(), data.shards()), text_task(data), tokenizer ? tokenizer->hash() : "",
                                 tokenizer ? tokenizer->size() : 0});
    default:
      return std::make_unique<VqaDataset>(VqaDataset::load(vqa_config(data, options.with_images)));
  }
}

/// What train_fraction and train_first leave.
std::unique_ptr<const Dataset> trained_part(const config::Data& data, std::unique_ptr<const Dataset> whole) {
  const int64_t samples = whole->size();
  if (data.train_first() > samples)
    fail(ErrorKind::kConfig, "data.train_first: at most the ", samples, " samples of the dataset are expected; got ",
         data.train_first());
  if (data.train_first() > 0) {
    const bool shuffled = data.task() == config::Data::VQA;
    return std::make_unique<SelectedDataset>(std::move(whole),
                                             shuffled ? random_indices(samples, data.train_first(), data.seed())
                                                      : first_indices(samples, data.train_first()));
  }
  if (data.train_fraction() >= 1) return whole;
  const int64_t count = std::max<int64_t>(1, std::llround(data.train_fraction() * static_cast<double>(samples)));
  return std::make_unique<SelectedDataset>(std::move(whole), random_indices(samples, count, data.seed()));
}

std::unique_ptr<const Dataset> open_one(const config::Data& data, const OpenOptions& options,
                                        const Tokenizer* tokenizer) {
  auto dataset = open_files(data, options, tokenizer);
  return options.whole ? std::move(dataset) : trained_part(data, std::move(dataset));
}

TextConfig text_config(const config::Data& data, const OpenOptions& options) {
  TextConfig to;
  to.max_tokens = data.max_text_tokens();
  to.threads = options.threads;
  to.task = text_task(data);
  to.loss_tokens = options.loss_tokens;
  to.needs_answers = options.needs_answers;
  to.seed = data.seed();
  switch (data.long_text()) {
    case config::LongText::FAIL:
      to.long_text = LongTextPolicy::kFail;
      break;
    case config::LongText::SKIP:
      to.long_text = LongTextPolicy::kSkip;
      break;
    case config::LongText::TRUNCATE:
      to.long_text = LongTextPolicy::kTruncate;
      break;
  }
  return to;
}

TextTable make_texts(const config::Data& data, const OpenOptions& options, const Dataset& dataset,
                     const Tokenizer* tokenizer) {
  return tokenizer ? TextTable(dataset, *tokenizer, text_config(data, options)) : TextTable(dataset);
}

}  // namespace

TextTask text_task(const config::Data& data) {
  switch (data.task()) {
    case config::Data::CAPTIONING:
      return TextTask::kCaptions;
    case config::Data::VQA:
      return TextTask::kVqa;
    case config::Data::CLASSES:
      break;
  }
  return TextTask::kClasses;
}

std::unique_ptr<const Tokenizer> open_tokenizer(const config::Data& data, int64_t model_vocab) {
  if (data.task() == config::Data::CLASSES) return nullptr;
  auto tokenizer = std::make_unique<const Tokenizer>(Tokenizer::load(tokenizer_config(data)));
  if (model_vocab > 0) check_vocabulary(*tokenizer, model_vocab, "the text model");
  return tokenizer;
}

std::unique_ptr<const Dataset> open_dataset(const config::Data& data, const OpenOptions& options,
                                            const Tokenizer* tokenizer) {
  if (data.mix().empty()) return open_one(data, options, tokenizer);
  std::vector<MixedDataset::Entry> entries;
  for (const config::MixedData& entry : data.mix())
    entries.push_back({open_one(entry.data(), options, tokenizer), entry.weight()});
  return std::make_unique<MixedDataset>(std::move(entries));
}

OpenedData::OpenedData(const config::Data& data, const OpenOptions& options)
    : tokenizer(open_tokenizer(data, options.model_vocab)),
      dataset(open_dataset(data, options, tokenizer.get())),
      texts(make_texts(data, options, *dataset, tokenizer.get())),
      decode_threads(options.decode_threads) {}

OpenedData::OpenedData(const config::Config& config, int64_t model_vocab, int threads)
    : OpenedData(config.data(), training_options(config, model_vocab, threads)) {}

OpenOptions training_options(const config::Config& config, int64_t model_vocab, int threads) {
  OpenOptions options;
  options.model_vocab = model_vocab;
  options.threads = threads;
  options.decode_threads = decode_threads(config, threads);
  options.with_images = image_size(config) > 0;
  if (config.loss().tokens() == config::Loss::ANSWER) options.loss_tokens = LossTokens::kAnswer;
  return options;
}

int decode_threads(const config::Config& config, int threads) {
  constexpr int kMost = 16;
  if (config.data().decode_threads() > 0) return config.data().decode_threads();
  return config.parallel().device() == config::Parallel::CUDA ? std::clamp(threads - 1, 1, kMost) : 1;
}

int64_t image_size(const config::Config& config) {
  const config::Model& model = config.model();
  switch (model.kind_case()) {
    case config::Model::kEpalm:
      return model.epalm().vision().image_size();
    case config::Model::kVisionClassifier:
      return model.vision_classifier().vision().image_size();
    case config::Model::kProjector:
      return model.projector().vision().image_size();
    case config::Model::kLanguageModel:
      return 0;
    case config::Model::KIND_NOT_SET:
      break;
  }
  fail(ErrorKind::kConfig, "model: expected one of epalm, vision_classifier, language_model, projector; got none");
}

LoaderConfig loader_config(const config::Config& config, const OpenedData& data) {
  return loader_config(config.data(), data, image_size(config), config.train().global_batch(),
                       config.train().micro_batch());
}

LoaderConfig loader_config(const config::Data& data, const OpenedData& opened, int64_t image_size, int64_t global_batch,
                           int64_t micro_batch) {
  LoaderConfig to;
  to.order = {opened.texts.size(), global_batch, micro_batch, data.seed(), data.shuffle(), opened.texts.parts()};
  for (int64_t bucket : data.length_buckets()) to.buckets.push_back(bucket);
  if (opened.tokenizer == nullptr)
    to.buckets = {1};  // there are no texts
  else if (to.buckets.empty())
    to.buckets.push_back(data.max_text_tokens());
  to.with_images = image_size > 0;
  if (to.with_images) to.transform.size = image_size;
  to.transform.training = data.transform() == config::Data::TRAIN;
  to.image_policy = data.image_policy() == config::ImagePolicy::SKIP ? ImagePolicy::kSkip : ImagePolicy::kFail;
  to.seed = data.seed();
  to.threads = data.decode_threads() > 0 ? data.decode_threads() : opened.decode_threads;
  to.prefetch = data.prefetch();
  return to;
}

}  // namespace permafrost
