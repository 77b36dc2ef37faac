#include "data/loader/prepare_image.h"

#include "core/base/philox.h"

namespace permafrost {

void prepare_image(const Dataset& dataset, int64_t image, const DecodeOptions& decode, const TransformConfig& transform,
                   uint64_t seed, uint32_t epoch, uint64_t sample_id, PrepareScratch& scratch, float* out) {
  dataset.read_image(image, scratch.bytes);
  decode_image(scratch.bytes, decode, dataset.image_name(image), scratch.rgb);
  TransformDraws draws;
  if (transform.training)
    draws = draw_transform(transform, scratch.rgb.width, scratch.rgb.height,
                           Random(seed, RandomPurpose::kAugment, epoch, sample_id));
  transform_image(scratch.rgb.view(), transform, draws, scratch.transform, out);
}

}  // namespace permafrost
