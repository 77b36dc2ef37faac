#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/sha256.h"

namespace permafrost {

/// Sum of block hashes, lane by lane, modulo 2^64. Sums of parts add up to the sum of the whole.
using BlockHashSum = std::array<uint64_t, 4>;

/// The hash of a piece of memory that several may compute together, whoever takes which part, in any order: its blocks
/// of 4096 bytes (the last may be short) are hashed each with its place, SHA-256("<name>\n" + block number + bytes in
/// the block + bytes; numbers as 8 bytes, little endian), and the digests are added up as four uint64 each.
/// Against accidents: a flipped bit, a block lost, doubled or in another's place. Not against adversaries, who can find
/// blocks with a given sum much sooner than a given SHA-256.
class BlockHasher {
 public:
  static constexpr int64_t kBlockBytes = 4096;

  /// Adds the blocks of `bytes`, the first of them block number `first_block` of `name`, to `sum`. Only the last block
  /// of all of `name` may be short.
  void add(std::string_view name, int64_t first_block, std::span<const std::byte> bytes, BlockHashSum& sum);

 private:
  Sha256 hash_;
};

/// 64 hexadecimal digits.
std::string to_hex(const BlockHashSum& sum);

}  // namespace permafrost
