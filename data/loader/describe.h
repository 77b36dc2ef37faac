#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "data/loader/loader.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

/// One sample as the model would see it, for people to look at.
struct SampleDescription {
  std::string name;               ///< the sample's id as the file writes it
  std::string image;              ///< where it is; empty with the ones below where no images are read
  std::string caption, question;  ///< as in the file
  std::vector<std::pair<std::string, float>> answers;
  std::vector<int32_t> classes;
  int64_t image_width = 0, image_height = 0;  ///< of the photograph, before the transform
  std::vector<float> pixels;                  ///< [3, size, size], normalised
  std::vector<int32_t> ids;                   ///< [T] without padding
  std::string text;                           ///< decoded ids; empty without a tokenizer
};

/// The index-th sample of `texts` in dataset order, its random draws those of `epoch`; the same pixels and ids that the
/// loader gives. Errors: kData naming the file (the image policy is not looked at); kInvalidArgument for the index.
SampleDescription describe_sample(const Dataset& dataset, const TextTable& texts, const Tokenizer* tokenizer,
                                  const LoaderConfig& config, uint32_t epoch, int64_t index);

}  // namespace permafrost
