#pragma once
#include <immintrin.h>

#include <cstdint>

// Pieces shared by linear_amx.cc and linear_split_amx.cc; for those alone (see vector_math_avx512.h).
namespace permafrost::amx {

inline constexpr int64_t kTileRows = 16, kTileBytes = 1024;

// As instructions, since the compiler drops loops that do nothing but prefetch.
/// Asks for the line of p in the second-level cache.
[[gnu::always_inline]] inline void ask(const void* p) { asm volatile("prefetcht1 (%0)" ::"r"(p)); }
/// Asks for the line of p in the first-level cache, to be written.
[[gnu::always_inline]] inline void ask_to_own(const void* p) { asm volatile("prefetchw (%0)" ::"r"(p)); }

/// The sums of one call, in tiles 0 1 / 2 3: from zero or from memory, and back.
template <int kRows, int kColumns>
struct TileSums {
  float* c;
  int64_t ldc;

  [[gnu::always_inline]] void load(bool first) const {
    const auto bytes = static_cast<size_t>(ldc) * sizeof(float);
    float* below = c + kTileRows * ldc;
    if (first) {
      _tile_zero(0);
      if constexpr (kColumns == 2) _tile_zero(1);
      if constexpr (kRows == 2) _tile_zero(2);
      if constexpr (kRows == 2 && kColumns == 2) _tile_zero(3);
    } else {
      _tile_loadd(0, c, bytes);
      if constexpr (kColumns == 2) _tile_loadd(1, c + kTileRows, bytes);
      if constexpr (kRows == 2) _tile_loadd(2, below, bytes);
      if constexpr (kRows == 2 && kColumns == 2) _tile_loadd(3, below + kTileRows, bytes);
    }
  }

  [[gnu::always_inline]] void store() const {
    const auto bytes = static_cast<size_t>(ldc) * sizeof(float);
    float* below = c + kTileRows * ldc;
    _tile_stored(0, c, bytes);
    if constexpr (kColumns == 2) _tile_stored(1, c + kTileRows, bytes);
    if constexpr (kRows == 2) _tile_stored(2, below, bytes);
    if constexpr (kRows == 2 && kColumns == 2) _tile_stored(3, below + kTileRows, bytes);
  }
};

/// function.template operator()<kRows, kColumns>() for the tiles that so many rows and columns take.
template <typename Function>
[[gnu::always_inline]] inline void with_tiles(int64_t rows, int64_t columns, Function&& function) {
  if (rows > kTileRows)
    columns > kTileRows ? function.template operator()<2, 2>() : function.template operator()<2, 1>();
  else
    columns > kTileRows ? function.template operator()<1, 2>() : function.template operator()<1, 1>();
}

/// Eight tiles of 16 rows of 64 bytes.
inline void configure_tiles() {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static constexpr Config kConfig;
  _tile_loadconfig(&kConfig);
}

}  // namespace permafrost::amx
