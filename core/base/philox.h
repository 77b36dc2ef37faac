#pragma once
#include <array>
#include <cstdint>

namespace permafrost {

/// Philox4x32-10: four 32-bit words as a pure function of (counter, key).
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiply0 = 0xD2511F53, kMultiply1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiply0 * counter[0];
    const uint64_t p1 = kMultiply1 * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

/// What a stream of random numbers is for; part of its address, so two uses never share numbers.
enum class RandomPurpose : uint32_t {
  kInit = 1,          ///< parameter initialisation; sample = parameter name hash
  kDataOrder = 2,     ///< shuffling; sample = index
  kAugment = 3,       ///< image augmentation; sample = sample id
  kDropout = 4,       ///< dropout masks; sample = sample id, layer = operation
  kAnswerChoice = 5,  ///< drawing one of several answers or captions
  kSynthetic = 6,     ///< generated data
};

/// Key of the streams of (seed, purpose, layer). The three are mixed through one Philox call, so that streams that
/// differ in any of them differ in the whole key; sample and epoch stay in the counter.
constexpr std::array<uint32_t, 2> random_key(uint64_t seed, RandomPurpose purpose, uint32_t layer) {
  const auto mixed = philox4x32({static_cast<uint32_t>(purpose), layer, 0, 0},
                                {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return {mixed[0], mixed[1]};
}

/// Counter of block `index` of the stream of (epoch, sample).
constexpr std::array<uint32_t, 4> random_counter(uint32_t index, uint32_t epoch, uint64_t sample) {
  return {index, static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32), epoch};
}

/// Counter-based random numbers addressed by (seed, purpose, epoch, sample, layer): no state to save, any draw can
/// be recomputed alone. Copyable; `next…` walks the last counter word.
class Random {
 public:
  Random(uint64_t seed, RandomPurpose purpose, uint32_t epoch = 0, uint64_t sample = 0, uint32_t layer = 0);

  uint32_t next_u32();
  uint64_t next_u64();
  /// Uniform in [0, 1) with 24 bits.
  float next_float();
  /// Uniform in [0, 1) with 53 bits.
  double next_double();
  /// Uniform integer in [0, n), n > 0, without modulo bias.
  uint64_t next_below(uint64_t n);
  /// Standard normal (Box-Muller, computed in double).
  double next_normal();

  /// The four words of block `index` of this stream, independent of how many were drawn.
  std::array<uint32_t, 4> block(uint32_t index) const;

  /// Address of this stream, for code that makes many blocks at once:
  /// block(i) == philox4x32({i, counter()[1], counter()[2], counter()[3]}, key()).
  const std::array<uint32_t, 4>& counter() const { return counter_; }
  const std::array<uint32_t, 2>& key() const { return key_; }

 private:
  std::array<uint32_t, 4> counter_;  // {block index, sample low, sample high, epoch}
  std::array<uint32_t, 2> key_;      // seed, purpose and layer mixed
  std::array<uint32_t, 4> words_{};
  uint32_t next_block_ = 0;
  uint32_t used_ = 4;
};

/// A bijection of [0, size) chosen by key: position -> element, O(1) memory and time, so that a shuffled order
/// can be entered anywhere. Eight-round Feistel network on Philox with cycle walking
/// (with four rounds, orders of a dozen elements are visibly uneven over epochs).
uint64_t permute_index(uint64_t position, uint64_t size, uint64_t seed, uint32_t epoch);

}  // namespace permafrost
