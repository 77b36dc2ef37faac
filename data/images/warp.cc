#include "data/images/warp.h"

#include <cmath>
#include <numbers>

#include "core/base/check.h"

namespace permafrost {
namespace {

constexpr int kFractionBits = 5, kFractions = 1 << kFractionBits;  // positions in 1/32 pixel
constexpr int kExtraBits = 5;                                      // coordinates are added up in 1/1024 pixel

AffineMatrix inverse(const AffineMatrix& m) {
  const double determinant = m[0] * m[4] - m[1] * m[3];
  const double d = determinant != 0 ? 1.0 / determinant : 0.0;
  const double a = m[4] * d, b = m[1] * -d, c = m[3] * -d, e = m[0] * d;
  return {a, b, -a * m[2] - b * m[5], c, e, -c * m[2] - e * m[5]};
}

int64_t fixed(double value) { return std::llrint(value * (kFractions << kExtraBits)); }

}  // namespace

AffineMatrix rotation_matrix(double center_x, double center_y, double degrees) {
  const double angle = degrees * (std::numbers::pi / 180);
  const double cosine = std::cos(angle), sine = std::sin(angle);
  return {cosine, sine,   (1 - cosine) * center_x - sine * center_y,
          -sine,  cosine, sine * center_x + (1 - cosine) * center_y};
}

void warp_affine(const ImageView& in, const AffineMatrix& matrix, uint8_t fill, Image& out) {
  PERMAFROST_CHECK(in.channels == 3, "warp_affine: 3 channels are expected; got ", in.channels);
  const AffineMatrix m = inverse(matrix);
  const uint8_t outside[3] = {fill, fill, fill};
  const auto pixel = [&](int64_t x, int64_t y) {
    return x >= 0 && y >= 0 && x < in.width && y < in.height ? in.row(y) + x * 3 : outside;
  };
  constexpr int64_t kRound = 1 << (kExtraBits - 1);
  out.set_up(in.width, in.height);
  for (int64_t y = 0; y < out.height; ++y) {
    uint8_t* to = out.row(y);
    const auto row = static_cast<double>(y);
    const int64_t row_x = fixed(m[1] * row + m[2]) + kRound, row_y = fixed(m[4] * row + m[5]) + kRound;
    for (int64_t x = 0; x < out.width; ++x, to += 3) {
      const auto column = static_cast<double>(x);
      const int64_t at_x = (row_x + fixed(m[0] * column)) >> kExtraBits;
      const int64_t at_y = (row_y + fixed(m[3] * column)) >> kExtraBits;
      const int64_t left = at_x >> kFractionBits, top = at_y >> kFractionBits;
      const auto a = static_cast<int>(at_x & (kFractions - 1)), b = static_cast<int>(at_y & (kFractions - 1));
      const int w00 = (kFractions - a) * (kFractions - b), w10 = a * (kFractions - b), w01 = (kFractions - a) * b,
                w11 = a * b;
      const uint8_t *p00 = pixel(left, top), *p10 = pixel(left + 1, top);
      const uint8_t *p01 = pixel(left, top + 1), *p11 = pixel(left + 1, top + 1);
      for (int c = 0; c < 3; ++c) {  // weights sum to 1024
        const int sum = w00 * p00[c] + w10 * p10[c] + w01 * p01[c] + w11 * p11[c];
        to[c] = static_cast<uint8_t>((sum + 512) >> 10);
      }
    }
  }
}

}  // namespace permafrost
