#include "data/images/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/check.h"

namespace permafrost {
namespace {

constexpr int kPrecisionBits = 32 - 8 - 2;  // 8 bits of pixel, 2 of headroom for overshoot

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double bicubic(double x) {  // Keys' kernel with a = -0.5
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

/// Taps and weights for one axis: `in_size` source pixels, of which [begin, end) become `out_size`.
void plan_axis(ResizeFilter filter, int64_t in_size, float begin, float end, int64_t out_size,
               std::vector<double>& weights, ResizeScratch::Axis& axis) {
  const double scale = static_cast<double>(end - begin) / static_cast<double>(out_size);
  const double filter_scale = std::max(scale, 1.0);
  const double support = (filter == ResizeFilter::kBicubic ? 2.0 : 1.0) * filter_scale;
  axis.stride = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  axis.weights.assign(static_cast<size_t>(out_size * axis.stride), 0);
  axis.taps.resize(static_cast<size_t>(out_size));
  weights.resize(static_cast<size_t>(axis.stride));
  for (int64_t i = 0; i < out_size; ++i) {
    const double center = begin + (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in_size);
    const int64_t count = last - first;
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      const double x = (static_cast<double>(k + first) - center + 0.5) * (1.0 / filter_scale);
      const double w = filter == ResizeFilter::kBicubic ? bicubic(x) : bilinear(x);
      weights[static_cast<size_t>(k)] = w;
      sum += w;
    }
    int32_t* fixed = axis.weights.data() + i * axis.stride;
    for (int64_t k = 0; k < count; ++k) {
      double w = weights[static_cast<size_t>(k)];
      if (sum != 0.0) w /= sum;
      const double scaled = w * (1 << kPrecisionBits);
      fixed[k] = static_cast<int32_t>(w < 0 ? scaled - 0.5 : scaled + 0.5);
    }
    axis.taps[static_cast<size_t>(i)] = {first, count};
  }
}

uint8_t clip8(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255)); }

constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);

template <int kChannels>
void horizontal_row(const uint8_t* in, const ResizeScratch::Axis& axis, int64_t width, uint8_t* out) {
  for (int64_t x = 0; x < width; ++x, out += kChannels) {
    const auto [first, count] = axis.taps[static_cast<size_t>(x)];
    const int32_t* weights = axis.weights.data() + x * axis.stride;
    const uint8_t* pixel = in + first * kChannels;
    int32_t sums[kChannels];
    std::fill_n(sums, kChannels, kHalf);
    for (int64_t k = 0; k < count; ++k, pixel += kChannels)
      for (int c = 0; c < kChannels; ++c) sums[c] += pixel[c] * weights[k];
    for (int c = 0; c < kChannels; ++c) out[c] = clip8(sums[c]);
  }
}

void horizontal_rows(const ImageView& in, int64_t first_row, int64_t rows, const ResizeScratch::Axis& axis,
                     int64_t width, uint8_t* out) {
  for (int64_t y = 0; y < rows; ++y, out += width * in.channels) {
    const uint8_t* row = in.row(first_row + y);
    switch (in.channels) {
      case 1:
        horizontal_row<1>(row, axis, width, out);
        break;
      case 3:
        horizontal_row<3>(row, axis, width, out);
        break;
      default:
        horizontal_row<4>(row, axis, width, out);
        break;
    }
  }
}

/// `in` begins at source row `first_row`.
void vertical_rows(const ImageView& in, int64_t first_row, const ResizeScratch::Axis& axis, std::vector<int32_t>& sums,
                   Image& out) {
  const auto row_values = static_cast<size_t>(out.row_bytes());
  sums.resize(row_values);
  for (int64_t y = 0; y < out.height; ++y) {
    const auto [first, count] = axis.taps[static_cast<size_t>(y)];
    const int32_t* weights = axis.weights.data() + y * axis.stride;
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int64_t k = 0; k < count; ++k) {
      const uint8_t* row = in.row(first - first_row + k);
      const int32_t weight = weights[k];
      for (size_t i = 0; i < row_values; ++i) sums[i] += row[i] * weight;
    }
    uint8_t* to = out.row(y);
    for (size_t i = 0; i < row_values; ++i) to[i] = clip8(sums[i]);
  }
}

}  // namespace

void resize_image(const ImageView& source, ResizeFilter filter, int64_t width, int64_t height, ResizeScratch& scratch,
                  Image& out, const std::optional<ResizeBox>& given_box) {
  PERMAFROST_CHECK(source.width > 0 && source.height > 0 && width > 0 && height > 0,
                   "resize_image: sizes must be positive; got ", source.width, " x ", source.height, " to ", width,
                   " x ", height);
  PERMAFROST_CHECK(source.channels == 1 || source.channels == 3 || source.channels == 4,
                   "resize_image: 1, 3 or 4 channels are expected; got ", source.channels);
  const auto in_width = static_cast<float>(source.width), in_height = static_cast<float>(source.height);
  const ResizeBox box = given_box.value_or(ResizeBox{0, 0, in_width, in_height});
  PERMAFROST_CHECK(box.left >= 0 && box.upper >= 0 && box.right <= in_width && box.lower <= in_height &&
                       box.left < box.right && box.upper < box.lower,
                   "resize_image: the box must lie in 0,0,", source.width, ',', source.height, "; got ", box.left, ',',
                   box.upper, ',', box.right, ',', box.lower);
  const bool change_rows = width != source.width || box.left != 0 || box.right != static_cast<float>(width);
  const bool change_columns = height != source.height || box.upper != 0 || box.lower != static_cast<float>(height);
  out.set_up(width, height, source.channels);
  plan_axis(filter, source.height, box.upper, box.lower, height, scratch.row_weights, scratch.vertical);
  if (!change_rows && !change_columns) {
    for (int64_t y = 0; y < height; ++y) std::memcpy(out.row(y), source.row(y), static_cast<size_t>(out.row_bytes()));
    return;
  }
  ImageView between = source;
  int64_t first_row = 0;
  if (change_rows) {
    plan_axis(filter, source.width, box.left, box.right, width, scratch.row_weights, scratch.horizontal);
    first_row = scratch.vertical.taps.front()[0];
    const int64_t rows = scratch.vertical.taps.back()[0] + scratch.vertical.taps.back()[1] - first_row;
    scratch.between.resize(static_cast<size_t>(rows * out.row_bytes()));
    horizontal_rows(source, first_row, rows, scratch.horizontal, width, scratch.between.data());
    between = {scratch.between.data(), width, rows, source.channels, out.row_bytes()};
  }
  if (change_columns) {
    vertical_rows(between, first_row, scratch.vertical, scratch.sums, out);
  } else {
    std::memcpy(out.pixels.data(), between.pixels, out.pixels.size());
  }
}

}  // namespace permafrost
