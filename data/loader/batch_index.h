#pragma once
#include <cstdint>
#include <vector>

#include "data/datasets/batch_order.h"
#include "data/loader/text_table.h"

namespace permafrost {

/// Members and padded shape of every micro-batch, known on every rank without decoding anything.
/// Micro-batches are numbered through the whole training: epoch = number / micro_batches_per_epoch.
class BatchIndex {
 public:
  /// `buckets`: padded text lengths, ascending, the last holding the longest text; empty: every micro-batch has the
  /// length of its longest text (the published padding). `texts` must outlive the index.
  /// Errors: kConfig for buckets that are not ascending or too short, and what BatchOrder::check finds.
  BatchIndex(const TextTable& texts, const BatchOrder& order, std::vector<int64_t> buckets);

  const BatchOrder& order() const { return order_; }
  const std::vector<int64_t>& buckets() const { return buckets_; }
  int64_t max_tokens() const { return buckets_.empty() ? texts_->longest() : buckets_.back(); }

  uint32_t epoch_of(int64_t micro_batch) const;
  /// Row of `texts` in each place; BatchOrder::kPadding where there is none. `rows` gets order().micro_batch entries.
  void members(int64_t micro_batch, std::vector<int64_t>& rows) const;
  /// T of the micro-batch: the smallest bucket that holds its longest text.
  int64_t padded_tokens(int64_t micro_batch) const;
  int64_t padded_tokens(const std::vector<int64_t>& rows, uint32_t epoch) const;

 private:
  const TextTable* texts_;
  BatchOrder order_;
  std::vector<int64_t> buckets_;
};

/// {step, 2 step, ..., at least max_tokens}: the usual list of buckets.
std::vector<int64_t> length_buckets(int64_t step, int64_t max_tokens);

}  // namespace permafrost
