#pragma once
#include <array>
#include <vector>

#include "core/base/philox.h"
#include "data/images/augment.h"
#include "data/images/image.h"
#include "data/images/resize.h"

namespace permafrost {

/// From an RGB photograph to the floats a vision model reads. Defaults: the published evaluation transform.
struct TransformConfig {
  int64_t size = 224;                                ///< pixels of the square that comes out
  bool training = false;                             ///< random crop, flip and RandAugment before normalising
  double crop_area_low = 0.5, crop_area_high = 1.0;  ///< share of the area that is kept
  double crop_ratio_low = 3.0 / 4.0, crop_ratio_high = 4.0 / 3.0;  ///< width over height
  double flip_probability = 0.5;
  int augment_count = 2, augment_level = 7;  ///< RandAugment's N and M (of 10)
  double augment_probability = 0.5;          ///< of each drawn operation being applied
  AugmentArithmetic augment_arithmetic = AugmentArithmetic::kIntended;
  /// Per channel, after division by 255. CLIP's, which the published code uses for every encoder.
  std::array<float, 3> mean{0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> deviation{0.26862954f, 0.26130258f, 0.27577711f};
};

/// Everything random about one training image.
struct TransformDraws {
  struct Step {
    AugmentOperation operation = AugmentOperation::kIdentity;
    double value = 0;  ///< sign included
    bool applied = false;
  };
  int64_t left = 0, top = 0, width = 0, height = 0;  ///< crop
  bool flip = false;
  std::vector<Step> steps;
};

/// Draws in a fixed order. The crop is torchvision's RandomResizedCrop: up to ten attempts of a uniform area share and
/// a log-uniform ratio, then the largest central crop of an allowed ratio.
TransformDraws draw_transform(const TransformConfig& config, int64_t width, int64_t height, Random random);

/// Working memory of one thread.
struct TransformScratch {
  ResizeScratch resize;
  Image square, other;
};

/// Writes [3, size, size] fp32 planar to `out`: resized to the square without keeping the aspect (bicubic, antialiased)
/// or, in training, the crop of `draws` resized, mirrored and augmented; then (x / 255 - mean) / deviation in fp32.
/// `draws` is read in training only. Errors: kInvalidArgument for an empty image or a crop outside it.
/// Source: eP-ALM's dataset/caption.py; torchvision 0.14 transforms.
void transform_image(const ImageView& rgb, const TransformConfig& config, const TransformDraws& draws,
                     TransformScratch& scratch, float* out);

/// The steps of transform_image by themselves.
void mirror(Image& image);
void normalise(const ImageView& rgb, const TransformConfig& config, float* out);

}  // namespace permafrost
