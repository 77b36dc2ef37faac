#pragma once
#include <array>

#include "data/images/image.h"

namespace permafrost {

/// Affine map from source to output coordinates: x' = m[0] x + m[1] y + m[2], y' = m[3] x + m[4] y + m[5].
using AffineMatrix = std::array<double, 6>;

/// Rotation by `degrees` about (center_x, center_y), counter-clockwise on the screen.
AffineMatrix rotation_matrix(double center_x, double center_y, double degrees);

/// Warps RGB into an image of the same size, bilinear with positions in 1/32 pixel, `fill` outside; equal to the bit to
/// cv2.warpAffine(..., flags=INTER_LINEAR, borderValue=(fill, fill, fill)) of OpenCV 4 before 4.11.
/// `out` must not be the memory of `source`. Errors: kInvalidArgument for other channel counts.
void warp_affine(const ImageView& source, const AffineMatrix& matrix, uint8_t fill, Image& out);

}  // namespace permafrost
