#pragma once
#include <cstdint>
#include <vector>

#include "data/datasets/dataset.h"
#include "data/images/decode.h"
#include "data/images/transform.h"

namespace permafrost {

/// Working memory of one thread.
struct PrepareScratch {
  std::vector<uint8_t> bytes;
  Image rgb;
  TransformScratch transform;
};

/// Reads, decodes and transforms an image of the dataset into [3, size, size] at `out`. What a training transform draws
/// comes from Random(seed, kAugment, epoch, sample_id) and from nothing else. Errors: kData naming the image.
void prepare_image(const Dataset& dataset, int64_t image, const DecodeOptions& decode, const TransformConfig& transform,
                   uint64_t seed, uint32_t epoch, uint64_t sample_id, PrepareScratch& scratch, float* out);

}  // namespace permafrost
