#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace permafrost {

/// How a flat space of `elements` is divided over `ranks`: consecutive ranges that start at multiples of `block`
/// elements, as even as whole blocks allow, the larger ones first. Ranges are empty when ranks outnumber blocks; the
/// last block may be short. A pure function of its three numbers.
class ShardSpec {
 public:
  static constexpr int64_t kBlock = 4096;
  ShardSpec(int64_t elements, int ranks, int64_t block = kBlock);

  int64_t elements() const { return elements_; }
  int ranks() const { return static_cast<int>(counts_.size()); }
  int64_t block() const { return block_; }
  int64_t blocks() const;
  int64_t begin(int rank) const;
  int64_t end(int rank) const { return begin(rank) + count(rank); }
  int64_t count(int rank) const { return counts_[static_cast<size_t>(rank)]; }
  /// Elements and blocks per rank, as collectives take them.
  std::span<const int64_t> counts() const { return counts_; }
  std::span<const int64_t> block_counts() const { return block_counts_; }

 private:
  int64_t elements_;
  int64_t block_;
  std::vector<int64_t> counts_;
  std::vector<int64_t> block_counts_;
};

}  // namespace permafrost
