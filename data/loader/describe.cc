#include "data/loader/describe.h"

#include "core/base/check.h"

namespace permafrost {

SampleDescription describe_sample(const CaptionDataset& dataset, const TextTable& texts, const Tokenizer& tokenizer,
                                  const LoaderConfig& config, uint32_t epoch, int64_t index) {
  PERMAFROST_CHECK(index >= 0 && index < texts.size(), "describe_sample: index must lie in 0..", texts.size() - 1,
                   "; got ", index);
  const Sample sample = dataset.sample(texts.dataset_index(index));
  const auto ids = texts.ids(index);
  SampleDescription description;
  description.id = sample.id;
  description.image_file = dataset.image_path(sample.image);
  description.caption = sample.caption;
  description.ids.assign(ids.begin(), ids.end());
  description.text = tokenizer.decode(ids);

  PrepareScratch scratch;
  description.pixels.resize(static_cast<size_t>(3 * config.transform.size * config.transform.size));
  prepare_image(description.image_file, config.decode, config.transform, config.seed, epoch, sample.id, scratch,
                description.pixels.data());
  description.image_width = scratch.rgb.width;
  description.image_height = scratch.rgb.height;
  return description;
}

}  // namespace permafrost
