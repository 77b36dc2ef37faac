#include "data/factory.h"

#include <filesystem>

#include "core/base/check.h"

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

CaptionDatasetConfig dataset_config(const config::Data& data) {
  if (data.task() != config::Data::CAPTIONING)
    fail(ErrorKind::kNotBuilt, "data.task: only CAPTIONING is built in this version; got VQA");
  CaptionDatasetConfig to;
  to.captions = below(data.root(), data.captions());
  to.images = below(data.root(), data.images());
  to.format = data.format() == config::Data::KARPATHY ? CaptionFormat::kKarpathy : CaptionFormat::kCoco;
  to.split = data.split();
  if (data.image_policy() == config::ImagePolicy::SKIP) to.missing_images = MissingImages::kKeep;
  return to;
}

TextConfig text_config(const config::Data& data, int threads) {
  TextConfig to;
  to.max_tokens = data.max_text_tokens();
  to.threads = threads;
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

Tokenizer fitting_tokenizer(const config::Data& data, int64_t model_vocab) {
  const TokenizerConfig from = tokenizer_config(data);
  Tokenizer tokenizer = Tokenizer::load(from);
  check_vocabulary(tokenizer, model_vocab, "the text model");
  return tokenizer;
}

}  // namespace

OpenedData::OpenedData(const config::Config& config, int64_t model_vocab, int threads)
    : tokenizer(fitting_tokenizer(config.data(), model_vocab)),
      dataset(CaptionDataset::load(dataset_config(config.data()))),
      texts(dataset, tokenizer, text_config(config.data(), threads)) {}

LoaderConfig loader_config(const config::Config& config, int64_t samples) {
  const config::Data& data = config.data();
  LoaderConfig to;
  to.order = {samples, config.train().global_batch(), config.train().micro_batch(), data.seed(), data.shuffle()};
  for (int64_t bucket : data.length_buckets()) to.buckets.push_back(bucket);
  if (to.buckets.empty()) to.buckets.push_back(data.max_text_tokens());
  to.transform.size = config.model().epalm().vision().image_size();
  to.transform.training = data.transform() == config::Data::TRAIN;
  to.image_policy = data.image_policy() == config::ImagePolicy::SKIP ? ImagePolicy::kSkip : ImagePolicy::kFail;
  to.seed = data.seed();
  to.threads = data.decode_threads();
  to.prefetch = data.prefetch();
  return to;
}

}  // namespace permafrost
