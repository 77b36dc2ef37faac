#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace permafrost {

/// Non-owning u8 image, channels interleaved: pixel (x, y), channel c at pixels[y * row_bytes + x * channels + c].
struct ImageView {
  const uint8_t* pixels = nullptr;
  int64_t width = 0, height = 0, channels = 3;
  int64_t row_bytes = 0;

  const uint8_t* row(int64_t y) const { return pixels + y * row_bytes; }
  /// The part that begins at (left, top); whoever reads it never sees beyond its edges.
  ImageView crop(int64_t left, int64_t top, int64_t part_width, int64_t part_height) const {
    return {row(top) + left * channels, part_width, part_height, channels, row_bytes};
  }
};

/// Owning u8 image [height, width, channels] without gaps. Capacity is kept when it is set up again.
struct Image {
  int64_t width = 0, height = 0, channels = 3;
  std::vector<uint8_t> pixels;

  void set_up(int64_t new_width, int64_t new_height, int64_t new_channels = 3) {
    width = new_width;
    height = new_height;
    channels = new_channels;
    pixels.resize(static_cast<size_t>(width * height * channels));
  }
  int64_t row_bytes() const { return width * channels; }
  uint8_t* row(int64_t y) { return pixels.data() + y * row_bytes(); }
  ImageView view() const { return {pixels.data(), width, height, channels, row_bytes()}; }
};

}  // namespace permafrost
