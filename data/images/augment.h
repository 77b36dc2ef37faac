#pragma once
#include <array>
#include <string_view>

#include "data/images/image.h"

namespace permafrost {

/// The ten operations that eP-ALM's RandAugment draws from, as ALBEF defines them.
enum class AugmentOperation {
  kIdentity,
  kAutoContrast,
  kEqualize,
  kBrightness,
  kSharpness,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY,
  kRotate,
};
inline constexpr std::array<AugmentOperation, 10> kAugmentOperations{
    AugmentOperation::kIdentity,   AugmentOperation::kAutoContrast, AugmentOperation::kEqualize,
    AugmentOperation::kBrightness, AugmentOperation::kSharpness,    AugmentOperation::kShearX,
    AugmentOperation::kShearY,     AugmentOperation::kTranslateX,   AugmentOperation::kTranslateY,
    AugmentOperation::kRotate};
std::string_view to_string(AugmentOperation operation);

/// True for operations whose value may point either way (shears, translations, rotation).
bool is_signed(AugmentOperation operation);

/// Magnitude at `level` of 10: enhancement factor, shear, pixels, degrees; 0 where an operation takes none.
double augment_value(AugmentOperation operation, int level);

/// How two operations compute where the published code overflows u8.
enum class AugmentArithmetic {
  kIntended,   ///< as Pillow's operations of these names (sharpness: inside the outermost ring of pixels)
  kPublished,  ///< to the bit as released: autocontrast whitens channels whose minimum is not 0, sharpness wraps
};

/// Applies an operation to an RGB image in place; `scratch` is overwritten. What a warp leaves empty becomes 128.
void augment(AugmentOperation operation, double value, AugmentArithmetic arithmetic, Image& image, Image& scratch);

}  // namespace permafrost
