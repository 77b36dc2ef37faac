#pragma once
// One tile of random values, compiled for any processor (initializer.cc), for AVX2 and for AVX-512 (initializer_*.cc).
// Internal linkage on purpose, as in convert_loops.h. Only integer operations and + - * / sqrt of IEEE floats, never
// contracted, so every variant gives the same bits.
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace permafrost {

/// Values come in tiles of 1024 from 256 Philox blocks: value 256 * j + k of tile t stems from word j of block
/// 256 * t + k. (Normal values take words 0 and 1, or 2 and 3, together.)
constexpr int kTileBlocks = 256;
constexpr int kTileValues = 4 * kTileBlocks;

struct PhiloxAddress {
  std::array<uint32_t, 4> counter;  ///< [0] is replaced by the block's number
  std::array<uint32_t, 2> key;
};

struct TileLoops {
  /// Standard normal values.
  void (*normal)(const PhiloxAddress&, uint32_t first_block, float* values);
  /// Uniform in (-1, 1).
  void (*uniform)(const PhiloxAddress&, uint32_t first_block, float* values);
};

namespace {

inline void philox_tile(const PhiloxAddress& address, uint32_t first_block, uint32_t* words) {
  uint32_t* __restrict w0 = words;
  uint32_t* __restrict w1 = words + kTileBlocks;
  uint32_t* __restrict w2 = words + 2 * kTileBlocks;
  uint32_t* __restrict w3 = words + 3 * kTileBlocks;
  const uint32_t a1 = address.counter[1], a2 = address.counter[2], a3 = address.counter[3];
  for (int k = 0; k < kTileBlocks; ++k) {
    uint32_t c0 = first_block + static_cast<uint32_t>(k), c1 = a1, c2 = a2, c3 = a3;
    uint32_t k0 = address.key[0], k1 = address.key[1];
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c0;
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(p1);
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(p0);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    w0[k] = c0;
    w1[k] = c1;
    w2[k] = c2;
    w3[k] = c3;
  }
}

/// Natural logarithm of u in [2^-24, 1]. Polynomial: Cephes logf (S. Moshier), error about 1e-7.
inline float log_of_uniform(float u) {
  const uint32_t bits = std::bit_cast<uint32_t>(u);
  auto exponent = static_cast<float>(static_cast<int32_t>(bits >> 23) - 126);
  const float mantissa = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  const bool low = mantissa < 0.707106781186547524f;
  const float x = low ? mantissa + mantissa - 1.0f : mantissa - 1.0f;
  exponent = low ? exponent - 1.0f : exponent;
  const float z = x * x;
  float y = 7.0376836292e-2f * x - 1.1514610310e-1f;
  y = y * x + 1.1676998740e-1f;
  y = y * x - 1.2420140846e-1f;
  y = y * x + 1.4249322787e-1f;
  y = y * x - 1.6668057665e-1f;
  y = y * x + 2.0000714765e-1f;
  y = y * x - 2.4999993993e-1f;
  y = y * x + 3.3333331174e-1f;
  y = y * x * z + exponent * -2.12194440e-4f - 0.5f * z;
  return x + y + exponent * 0.693359375f;
}

inline void normal_pairs(const uint32_t* __restrict radius_words, const uint32_t* __restrict angle_words,
                         float* __restrict first, float* __restrict second) {
  for (int k = 0; k < kTileBlocks; ++k) {
    const float u = static_cast<float>(static_cast<int32_t>(radius_words[k] >> 8) + 1) * 0x1p-24f;  // (0, 1], exact
    const float squared = -2.0f * log_of_uniform(u);
    const float radius = std::sqrt(squared > 0.0f ? squared : 0.0f);
    // The angle is a 24-bit fraction of a turn; nearest quarter and the rest of it are exact integers.
    const auto fraction = static_cast<int32_t>(angle_words[k] >> 8);
    const int32_t quarter = (fraction + (1 << 21)) >> 22;
    const float x = static_cast<float>(fraction - quarter * (1 << 22)) * 3.7450703e-7f;  // 2 pi / 2^24
    const float z = x * x;
    const float sine = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
    const float cosine =
        ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    const bool swap = (quarter & 1) != 0;
    const float c = swap ? sine : cosine, s = swap ? cosine : sine;
    const float signed_c = ((quarter + 1) & 2) != 0 ? -c : c;
    const float signed_s = (quarter & 2) != 0 ? -s : s;
    first[k] = radius * signed_c;
    second[k] = radius * signed_s;
  }
}

inline void normal_tile(const PhiloxAddress& address, uint32_t first_block, float* values) {
  alignas(64) uint32_t words[kTileValues];
  philox_tile(address, first_block, words);
  normal_pairs(words, words + kTileBlocks, values, values + kTileBlocks);
  normal_pairs(words + 2 * kTileBlocks, words + 3 * kTileBlocks, values + 2 * kTileBlocks, values + 3 * kTileBlocks);
}

inline void uniform_tile(const PhiloxAddress& address, uint32_t first_block, float* values) {
  alignas(64) uint32_t words[kTileValues];
  philox_tile(address, first_block, words);
  for (int i = 0; i < kTileValues; ++i)
    values[i] = (static_cast<float>(static_cast<int32_t>(words[i] >> 8)) - 8388607.5f) * 0x1p-23f;  // exact
}

constexpr TileLoops kTileLoops{normal_tile, uniform_tile};

}  // namespace

/// Call only where cpu_features() has the instruction set.
const TileLoops& tile_loops_avx2();
const TileLoops& tile_loops_avx512();

}  // namespace permafrost
