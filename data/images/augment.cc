#include "data/images/augment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/base/check.h"
#include "data/images/warp.h"

namespace permafrost {
namespace {

constexpr uint8_t kFill = 128;
using Table = std::array<uint8_t, 256>;

uint8_t clipped(double value) { return static_cast<uint8_t>(std::clamp(value, 0.0, 255.0)); }

std::array<int64_t, 256> histogram(const Image& image, size_t channel) {
  std::array<int64_t, 256> counts{};
  for (size_t i = channel; i < image.pixels.size(); i += 3) ++counts[image.pixels[i]];
  return counts;
}

void look_up(Image& image, size_t channel, const Table& table) {
  for (size_t i = channel; i < image.pixels.size(); i += 3) image.pixels[i] = table[image.pixels[i]];
}

void auto_contrast(Image& image, AugmentArithmetic arithmetic) {
  for (size_t c = 0; c < 3; ++c) {
    const auto counts = histogram(image, c);
    int low = 0, high = 255;
    while (low < 255 && counts[static_cast<size_t>(low)] == 0) ++low;
    while (high > 0 && counts[static_cast<size_t>(high)] == 0) --high;
    if (high <= low) continue;
    const double scale = 255.0 / (high - low);
    const int negated = arithmetic == AugmentArithmetic::kPublished ? (256 - low) % 256 : -low;
    const double offset = negated * scale;
    Table table;
    for (size_t v = 0; v < table.size(); ++v) table[v] = clipped(static_cast<double>(v) * scale + offset);
    look_up(image, c, table);
  }
}

void equalize(Image& image) {
  for (size_t c = 0; c < 3; ++c) {
    const auto counts = histogram(image, c);
    size_t brightest = 255;
    while (brightest > 0 && counts[brightest] == 0) --brightest;
    const int64_t step = (image.width * image.height - counts[brightest]) / 255;
    if (step == 0) continue;
    Table table;
    int64_t below = step / 2;
    for (size_t v = 0; v < table.size(); below += counts[v], ++v)
      table[v] = static_cast<uint8_t>(std::clamp<int64_t>(below / step, 0, 255));
    look_up(image, c, table);
  }
}

void brightness(Image& image, float factor) {
  Table table;
  for (size_t v = 0; v < table.size(); ++v) table[v] = clipped(static_cast<float>(v) * factor);
  for (uint8_t& value : image.pixels) value = table[value];
}

/// Towards (factor < 1) or away from a blur of weights 1, centre 5, over 13; the outermost ring stays.
void sharpness(Image& image, float factor, AugmentArithmetic arithmetic, Image& scratch) {
  scratch = image;
  for (int64_t y = 1; y + 1 < image.height; ++y) {
    const uint8_t *above = scratch.row(y - 1), *here = scratch.row(y), *under = scratch.row(y + 1);
    uint8_t* to = image.row(y);
    for (int64_t i = 3; i + 3 < image.row_bytes(); ++i) {
      const int sum = above[i - 3] + above[i] + above[i + 3] + here[i - 3] + 5 * here[i] + here[i + 3] + under[i - 3] +
                      under[i] + under[i + 3];
      const auto blurred = static_cast<float>((2 * sum + 13) / 26);  // to nearest; 13 is odd, so there are no ties
      const float value = blurred + factor * (static_cast<float>(here[i]) - blurred);
      to[i] = arithmetic == AugmentArithmetic::kPublished ? static_cast<uint8_t>(static_cast<int32_t>(value))
                                                          : clipped(value);
    }
  }
}

AffineMatrix matrix_of(AugmentOperation operation, double value, const Image& image) {
  const double rounded = static_cast<float>(value);  // the published matrices are fp32, except the rotation's
  switch (operation) {
    case AugmentOperation::kShearX:
      return {1, rounded, 0, 0, 1, 0};
    case AugmentOperation::kShearY:
      return {1, 0, 0, rounded, 1, 0};
    case AugmentOperation::kTranslateX:
      return {1, 0, -rounded, 0, 1, 0};
    case AugmentOperation::kTranslateY:
      return {1, 0, 0, 0, 1, -rounded};
    default:
      return rotation_matrix(static_cast<double>(image.width) / 2, static_cast<double>(image.height) / 2, value);
  }
}

}  // namespace

std::string_view to_string(AugmentOperation operation) {
  static constexpr std::array<std::string_view, 10> kNames{"Identity",   "AutoContrast", "Equalize", "Brightness",
                                                           "Sharpness",  "ShearX",       "ShearY",   "TranslateX",
                                                           "TranslateY", "Rotate"};
  return kNames[static_cast<size_t>(operation)];
}

bool is_signed(AugmentOperation operation) { return operation >= AugmentOperation::kShearX; }

double augment_value(AugmentOperation operation, int level) {
  const double share = level / 10.0;
  switch (operation) {
    case AugmentOperation::kIdentity:
    case AugmentOperation::kAutoContrast:
    case AugmentOperation::kEqualize:
      return 0;
    case AugmentOperation::kBrightness:
    case AugmentOperation::kSharpness:
      return share * 1.8 + 0.1;
    case AugmentOperation::kShearX:
    case AugmentOperation::kShearY:
      return share * 0.3;
    case AugmentOperation::kTranslateX:
    case AugmentOperation::kTranslateY:
      return share * 10;
    case AugmentOperation::kRotate:
      return share * 30;
  }
  return 0;
}

void augment(AugmentOperation operation, double value, AugmentArithmetic arithmetic, Image& image, Image& scratch) {
  PERMAFROST_CHECK(image.channels == 3, "augment: 3 channels are expected; got ", image.channels);
  switch (operation) {
    case AugmentOperation::kIdentity:
      break;
    case AugmentOperation::kAutoContrast:
      auto_contrast(image, arithmetic);
      break;
    case AugmentOperation::kEqualize:
      equalize(image);
      break;
    case AugmentOperation::kBrightness:
      brightness(image, static_cast<float>(value));
      break;
    case AugmentOperation::kSharpness:
      sharpness(image, static_cast<float>(value), arithmetic, scratch);
      break;
    default:
      warp_affine(image.view(), matrix_of(operation, value, image), kFill, scratch);
      std::swap(image, scratch);
  }
}

}  // namespace permafrost
