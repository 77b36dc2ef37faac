#include "data/loader/batch_index.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

BatchIndex::BatchIndex(const TextTable& texts, const BatchOrder& order, std::vector<int64_t> buckets)
    : texts_(&texts), order_(order), buckets_(std::move(buckets)) {
  order_.check();
  PERMAFROST_CHECK(order_.samples == texts.size(), "batch_index: order and texts must have as many samples; got ",
                   order_.samples, " and ", texts.size());
  for (size_t i = 0; i < buckets_.size(); ++i)
    if (buckets_[i] < 1 || (i > 0 && buckets_[i] <= buckets_[i - 1]))
      fail(ErrorKind::kConfig, "batch_index: lengths must be positive and ascending; got ", buckets_[i], " in place ",
           i, " [param=length_buckets]");
  if (!buckets_.empty() && buckets_.back() < texts.longest())
    fail(ErrorKind::kConfig, "batch_index: the last length must hold the longest text of ", texts.longest(),
         " tokens; got ", buckets_.back(), " [param=length_buckets]");
}

uint32_t BatchIndex::epoch_of(int64_t micro_batch) const {
  PERMAFROST_CHECK(micro_batch >= 0, "batch_index: micro-batch must not be negative; got ", micro_batch);
  return narrow<uint32_t>(micro_batch / order_.micro_batches_per_epoch());
}

void BatchIndex::members(int64_t micro_batch, std::vector<int64_t>& rows) const {
  const uint32_t epoch = epoch_of(micro_batch);
  const int64_t first = micro_batch % order_.micro_batches_per_epoch() * order_.micro_batch;
  rows.resize(static_cast<size_t>(order_.micro_batch));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = order_.sample_at(epoch, first + static_cast<int64_t>(i));
}

int64_t BatchIndex::padded_tokens(int64_t micro_batch) const {
  std::vector<int64_t> rows;
  members(micro_batch, rows);
  return padded_tokens(rows, epoch_of(micro_batch));
}

int64_t BatchIndex::padded_tokens(const std::vector<int64_t>& rows, uint32_t epoch) const {
  int64_t longest = 1;  // padding samples hold one token
  for (int64_t row : rows)
    if (row != BatchOrder::kPadding) longest = std::max(longest, texts_->length(row, epoch));
  if (buckets_.empty()) return longest;
  return *std::lower_bound(buckets_.begin(), buckets_.end(), longest);
}

std::vector<int64_t> length_buckets(int64_t step, int64_t max_tokens) {
  PERMAFROST_CHECK(step >= 1 && max_tokens >= 1, "length_buckets: positive numbers are expected; got ", step, " and ",
                   max_tokens);
  std::vector<int64_t> buckets;
  for (int64_t length = step; length < max_tokens + step; length += step) buckets.push_back(length);
  return buckets;
}

}  // namespace permafrost
