#include "data/datasets/batch_order.h"

#include "core/base/check.h"
#include "core/base/philox.h"

namespace permafrost {

void BatchOrder::check() const {
  if (samples < 1) fail(ErrorKind::kData, "batch_order: at least one sample is expected; got ", samples);
  if (micro_batch < 1 || global_batch < 1 || global_batch % micro_batch != 0)
    fail(ErrorKind::kConfig, "batch_order: the global batch must be a positive multiple of the micro-batch; got ",
         global_batch, " and ", micro_batch, " samples");
}

int64_t BatchOrder::sample_at(uint32_t epoch, int64_t position) const {
  PERMAFROST_CHECK(position >= 0 && position < steps_per_epoch() * global_batch,
                   "batch_order: position must lie in an epoch of ", steps_per_epoch() * global_batch, "; got ",
                   position);
  if (position >= samples) return kPadding;
  if (!shuffle) return position;
  return static_cast<int64_t>(
      permute_index(static_cast<uint64_t>(position), static_cast<uint64_t>(samples), seed, epoch));
}

}  // namespace permafrost
