#include "data/loader/describe.h"

#include "core/base/check.h"

namespace permafrost {

SampleDescription describe_sample(const Dataset& dataset, const TextTable& texts, const Tokenizer* tokenizer,
                                  const LoaderConfig& config, uint32_t epoch, int64_t index) {
  PERMAFROST_CHECK(index >= 0 && index < texts.size(), "describe_sample: index must lie in 0..", texts.size() - 1,
                   "; got ", index);
  const Sample sample = dataset.sample(texts.dataset_index(index));
  const auto ids = texts.ids(index, epoch).joined();
  SampleDescription description;
  description.name = sample_name(sample);
  description.caption = sample.caption;
  description.question = sample.question;
  for (const Answer& answer : sample.answers) description.answers.emplace_back(answer.text, answer.score);
  description.classes.assign(sample.classes.begin(), sample.classes.end());
  description.ids = ids;
  if (tokenizer) description.text = tokenizer->decode(ids);
  if (!config.with_images) return description;

  description.image = dataset.image_name(sample.image);
  PrepareScratch scratch;
  description.pixels.resize(static_cast<size_t>(3 * config.transform.size * config.transform.size));
  prepare_image(dataset, sample.image, config.decode, config.transform, config.seed, epoch, sample.id, scratch,
                description.pixels.data());
  description.image_width = scratch.rgb.width;
  description.image_height = scratch.rgb.height;
  return description;
}

}  // namespace permafrost
