#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace permafrost {

/// Rank-ordered merging of byte pairs. Ids are vocabulary ids; rank is the position of a merge in the file, lower
/// merges first and, among equals, the leftmost.
/// Source: Sennrich et al. 2016 (arXiv 1508.07909), section 3.2; bytes as alphabet: GPT-2.
class BytePairMerger {
 public:
  struct Merge {
    int32_t left = 0, right = 0, result = 0;
  };

  /// byte_ids[b] is the id of byte b; merges in rank order. A pair listed twice keeps its first rank.
  BytePairMerger(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges);

  /// Working memory of one thread; reuse it between calls.
  struct Scratch {
    std::vector<int32_t> ids, previous, next;
    std::vector<uint32_t> ranks;
    std::vector<uint64_t> heap;
  };

  /// Appends the ids of one piece. O(n log n) in its length. Thread-safe with a Scratch per thread.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Entry {
    uint64_t pair = UINT64_MAX;
    uint32_t rank = kNoRank;
    int32_t result = 0;
  };
  const Entry* find(int32_t left, int32_t right) const;
  void rank_pair(Scratch& scratch, int32_t position) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Entry> table_;  // open addressing, power of two, at most half full
  std::vector<int32_t> result_of_rank_;
};

}  // namespace permafrost
