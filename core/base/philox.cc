#include "core/base/philox.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/base/check.h"

namespace permafrost {

Random::Random(uint64_t seed, RandomPurpose purpose, uint32_t epoch, uint64_t sample, uint32_t layer)
    : counter_(random_counter(0, epoch, sample)), key_(random_key(seed, purpose, layer)) {}

std::array<uint32_t, 4> Random::block(uint32_t index) const {
  auto counter = counter_;
  counter[0] = index;
  return philox4x32(counter, key_);
}

uint32_t Random::next_u32() {
  if (used_ == 4) {
    words_ = block(next_block_++);
    used_ = 0;
  }
  return words_[used_++];
}

uint64_t Random::next_u64() {
  const uint64_t high = next_u32();
  return (high << 32) | next_u32();
}

float Random::next_float() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }

double Random::next_double() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }

uint64_t Random::next_below(uint64_t n) {
  PERMAFROST_CHECK(n > 0, "Random::next_below: n must be positive; got 0");
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;  // largest multiple of n that fits
  uint64_t draw = next_u64();
  while (draw >= limit) draw = next_u64();
  return draw % n;
}

double Random::next_normal() {
  const double u = 1.0 - next_double();  // (0, 1]: the logarithm stays finite
  const double v = next_double();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t permute_index(uint64_t position, uint64_t size, uint64_t seed, uint32_t epoch) {
  PERMAFROST_CHECK(position < size, "permute_index: position must be below ", size, "; got ", position);
  const int bits = std::max(2, static_cast<int>(std::bit_width(size - 1)));
  const int half = (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  const Random keys(seed, RandomPurpose::kDataOrder, epoch);
  std::array<uint32_t, 8> round_keys{};
  std::ranges::copy(keys.block(0), round_keys.begin());
  std::ranges::copy(keys.block(1), round_keys.begin() + 4);
  uint64_t x = position;
  do {  // cycle walking: the network permutes a power-of-four range that covers [0, size)
    uint64_t left = x >> half, right = x & mask;
    for (uint32_t round_key : round_keys) {
      const auto f =
          philox4x32({static_cast<uint32_t>(right), static_cast<uint32_t>(right >> 32), 0, 0}, {round_key, epoch});
      const uint64_t mixed = ((static_cast<uint64_t>(f[1]) << 32) | f[0]) & mask;
      const uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    x = (left << half) | right;
  } while (x >= size);
  return x;
}

}  // namespace permafrost
