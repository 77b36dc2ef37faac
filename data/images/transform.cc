#include "data/images/transform.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace permafrost {
namespace {

/// Python's round(): halves to even.
int64_t python_round(double value) { return std::llrint(value); }

double uniform(Random& random, double low, double high) { return low + (high - low) * random.next_double(); }

void draw_crop(const TransformConfig& config, int64_t width, int64_t height, Random& random, TransformDraws& draws) {
  const double log_low = std::log(config.crop_ratio_low), log_high = std::log(config.crop_ratio_high);
  const auto area = static_cast<double>(width * height);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * uniform(random, config.crop_area_low, config.crop_area_high);
    const double ratio = std::exp(uniform(random, log_low, log_high));
    draws.width = python_round(std::sqrt(target * ratio));
    draws.height = python_round(std::sqrt(target / ratio));
    if (draws.width <= 0 || draws.width > width || draws.height <= 0 || draws.height > height) continue;
    draws.top = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(height - draws.height + 1)));
    draws.left = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(width - draws.width + 1)));
    return;
  }
  draws.width = width;
  draws.height = height;
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  if (ratio < config.crop_ratio_low) {
    draws.height = python_round(static_cast<double>(width) / config.crop_ratio_low);
  } else if (ratio > config.crop_ratio_high) {
    draws.width = python_round(static_cast<double>(height) * config.crop_ratio_high);
  }
  draws.width = std::clamp<int64_t>(draws.width, 1, width);
  draws.height = std::clamp<int64_t>(draws.height, 1, height);
  draws.top = (height - draws.height) / 2;
  draws.left = (width - draws.width) / 2;
}

}  // namespace

TransformDraws draw_transform(const TransformConfig& config, int64_t width, int64_t height, Random random) {
  TransformDraws draws;
  draw_crop(config, width, height, random, draws);
  draws.flip = random.next_double() < config.flip_probability;
  for (int i = 0; i < config.augment_count; ++i) {
    const auto operation = kAugmentOperations[random.next_below(kAugmentOperations.size())];
    const bool applied = random.next_double() < config.augment_probability;
    const bool negative = random.next_double() < 0.5;
    const double value = augment_value(operation, config.augment_level);
    draws.steps.push_back({operation, is_signed(operation) && negative ? -value : value, applied});
  }
  return draws;
}

void mirror(Image& image) {
  for (int64_t y = 0; y < image.height; ++y) {
    uint8_t* row = image.row(y);
    for (int64_t a = 0, b = image.width - 1; a < b; ++a, --b)
      std::swap_ranges(row + a * image.channels, row + (a + 1) * image.channels, row + b * image.channels);
  }
}

void normalise(const ImageView& rgb, const TransformConfig& config, float* out) {
  PERMAFROST_CHECK(rgb.channels == 3, "normalise: 3 channels are expected; got ", rgb.channels);
  for (size_t c = 0; c < 3; ++c) {
    std::array<float, 256> table;
    for (size_t v = 0; v < table.size(); ++v)
      table[v] = (static_cast<float>(v) / 255.0f - config.mean[c]) / config.deviation[c];
    for (int64_t y = 0; y < rgb.height; ++y) {
      const uint8_t* pixel = rgb.row(y) + c;
      for (int64_t x = 0; x < rgb.width; ++x, pixel += 3) *out++ = table[*pixel];
    }
  }
}

void transform_image(const ImageView& rgb, const TransformConfig& config, const TransformDraws& draws,
                     TransformScratch& scratch, float* out) {
  ImageView part = rgb;
  if (config.training) {
    PERMAFROST_CHECK(draws.left >= 0 && draws.top >= 0 && draws.width > 0 && draws.height > 0 &&
                         draws.left + draws.width <= rgb.width && draws.top + draws.height <= rgb.height,
                     "transform_image: the crop must lie in ", rgb.width, " x ", rgb.height, "; got ", draws.width,
                     " x ", draws.height, " at ", draws.left, ',', draws.top);
    part = rgb.crop(draws.left, draws.top, draws.width, draws.height);
  }
  resize_image(part, ResizeFilter::kBicubic, config.size, config.size, scratch.resize, scratch.square);
  if (config.training) {
    if (draws.flip) mirror(scratch.square);
    for (const auto& step : draws.steps)
      if (step.applied) augment(step.operation, step.value, config.augment_arithmetic, scratch.square, scratch.other);
  }
  normalise(scratch.square.view(), config, out);
}

}  // namespace permafrost
