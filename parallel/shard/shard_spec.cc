#include "parallel/shard/shard_spec.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

ShardSpec::ShardSpec(int64_t elements, int ranks, int64_t block) : elements_(elements), block_(block) {
  PERMAFROST_CHECK(elements >= 0 && ranks >= 1 && block >= 1,
                   "shard: elements must be >= 0, ranks and block >= 1; got ", elements, ", ", ranks, ", ", block);
  const int64_t share = blocks() / ranks;
  const int64_t extra = blocks() % ranks;
  int64_t at = 0;
  for (int r = 0; r < ranks; ++r) {
    block_counts_.push_back(share + (r < extra ? 1 : 0));
    counts_.push_back(std::min(at + block_counts_.back() * block_, elements_) - at);
    at += counts_.back();
  }
}

int64_t ShardSpec::blocks() const { return div_up(elements_, block_); }

int64_t ShardSpec::begin(int rank) const {
  PERMAFROST_CHECK(rank >= 0 && rank <= ranks(), "shard: rank must be in 0..", ranks(), "; got ", rank);
  int64_t at = 0;
  for (int r = 0; r < rank; ++r) at += counts_[static_cast<size_t>(r)];
  return at;
}

}  // namespace permafrost
