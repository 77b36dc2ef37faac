#include <glog/logging.h>

#include <cstdio>
#include <iostream>

#include "configs/validate.h"
#include "core/base/json.h"
#include "core/weights/atomic_file.h"
#include "data/factory.h"
#include "data/images/decode.h"
#include "launch/commands.h"
#include "launch/evaluation/generator.h"
#include "launch/evaluation/image_list.h"
#include "launch/evaluation/model_config.h"
#include "launch/evaluation/published_text.h"
#include "launch/training/agreement.h"

namespace permafrost {

namespace {

/// Prompts of all images. Errors: kConfig where questions and the task do not go together.
std::vector<std::vector<int32_t>> prompts_of(const config::Data& data, const Tokenizer& tokenizer,
                                             const std::vector<ListedImage>& images) {
  std::vector<std::vector<int32_t>> prompts;
  for (const ListedImage& image : images) {
    if (data.task() == config::Data::VQA) {
      if (image.question.empty())
        fail(ErrorKind::kConfig,
             "generate: a question is expected where evaluation.data.task is VQA (--question, or a tab and the "
             "question behind the image in a list); got none for ",
             image.file.string());
      prompts.push_back(question_ids(tokenizer, image.question));
    } else {
      if (!image.question.empty())
        fail(ErrorKind::kConfig, "generate: no question expected where evaluation.data.task is CAPTIONING; got \"",
             image.question, "\" for ", image.file.string());
      prompts.push_back(tokenizer.prefix());
    }
  }
  return prompts;
}

/// The images of a batch, one behind the other.
std::vector<float> read_images(std::span<const ListedImage> images, int64_t size) {
  DecodeOptions decode;
  TransformConfig transform;
  transform.size = size;
  std::vector<float> pixels(images.size() * static_cast<size_t>(3 * size * size));
  std::vector<uint8_t> bytes;
  Image rgb;
  TransformScratch scratch;
  for (size_t i = 0; i < images.size(); ++i) {
    decode_image_file(images[i].file, decode, bytes, rgb);
    transform_image(rgb.view(), transform, {}, scratch, pixels.data() + i * static_cast<size_t>(3 * size * size));
  }
  return pixels;
}

OrderedJson json_of(const ListedImage& image, const FoundText& found, const std::string& text) {
  OrderedJson entry;
  entry["image"] = image.file.string();
  if (!image.question.empty()) entry["question"] = image.question;
  entry["text"] = text;
  entry["tokens"] = found.tokens;
  entry["ended"] = found.ended;
  entry["score"] = found.score;
  entry["log_probability"] = found.log_probability;
  return entry;
}

void generate_on_rank(const GenerateOptions& options, const config::Config& config, Runtime& runtime) {
  if (runtime.size() > 1)
    fail(ErrorKind::kConfig,
         "generate: expected one rank, started without a launcher (several evaluate a dataset: permafrost eval); got ",
         runtime.size());
  const config::Data& data = config.evaluation().data();
  const std::vector<ListedImage> images = list_images(options.image, options.question);
  const auto tokenizer = open_tokenizer(data, config.model().epalm().text().vocab());
  const std::vector<std::vector<int32_t>> prompts = prompts_of(data, *tokenizer, images);
  int64_t longest = 1;
  for (const auto& prompt : prompts) longest = std::max(longest, std::ssize(prompt));
  GenerationSetup setup = generation_setup(config, longest, tokenizer->end_id(), tokenizer->pad_id());
  setup.shape.batch = std::min(setup.shape.batch, std::ssize(images));
  const Plan plan =
      agreed_plan(config, runtime, [&](const PlanChoices& choices) { return generation_plan(config, choices, setup); });
  Generator generator(config, runtime, setup, plan);
  for (const std::string& note : generator.notes()) std::cerr << note << '\n';
  for (const std::string& note : {setup.note, missing_adapter_note(config, options.config.path)})
    if (!note.empty()) std::cerr << note << '\n';

  const TextTask task = text_task(data);
  OrderedJson all = OrderedJson::array();
  const auto batch = static_cast<size_t>(setup.shape.batch);
  for (size_t begin = 0; begin < images.size(); begin += batch) {
    const size_t count = std::min(batch, images.size() - begin);
    const std::span<const ListedImage> here = std::span(images).subspan(begin, count);
    const auto found = generator.generate(std::span(prompts).subspan(begin, count),
                                          read_images(here, config.model().epalm().vision().image_size()));
    for (size_t i = 0; i < count; ++i) {
      const std::string text = published_text(*tokenizer, task, prompts[begin + i], found[i].tokens);
      char score[32];
      std::snprintf(score, sizeof score, "%.4f", found[i].score);
      std::cout << here[i].file.string() << '\t' << text << '\t' << score << std::endl;
      all.push_back(json_of(here[i], found[i], text));
    }
  }
  if (!options.json.empty()) write_file_atomically(options.json, json_text(all, 1) + "\n");
}

}  // namespace

int run_generate(const GenerateOptions& options, const Launcher& launcher) {
  const config::Resolved resolved =
      load_generating_config(options.config.path, options.config.overrides, options.adapter);
  config::require_tokenizer(resolved.config);
  return run_ranks(launcher, runtime_options(resolved.config.parallel()),
                   [&](Runtime& runtime) { generate_on_rank(options, resolved.config, runtime); });
}

}  // namespace permafrost
