#pragma once
#include <cstdint>

#include "core/tensor/dtype.h"

namespace permafrost {

/// What happened to the values of a tensor on the way from one dtype to another.
struct ConvertStatistics {
  int64_t elements = 0;
  int64_t non_finite = 0;              ///< NaN and infinity in the source
  int64_t overflowed = 0;              ///< finite in the source, infinite in the target
  double largest_relative_change = 0;  ///< max |new - old| / |old| over the other elements; only where asked for

  void add(const ConvertStatistics& other);
};

/// Converts `elements` values, contiguous, of dtype `from` at `source` to dtype `to` at `target` (aligned to their
/// elements, not overlapping). f32, f16, bf16 and f64 become f32, f16 or bf16, rounded once, to nearest even; any
/// dtype may be copied to itself. The same bits on every processor.
/// Returns the statistics; the largest relative change only `with_change`, 0 otherwise.
/// Errors: kInvalidArgument for another pair of dtypes.
ConvertStatistics convert_block(DType from, const void* source, DType to, void* target, int64_t elements,
                                bool with_change = false);

/// Elements and values that are not finite, of any dtype; the rest of the statistics is 0.
ConvertStatistics count_block(DType dtype, const void* values, int64_t elements);

/// True for the pairs that `convert_block` takes.
bool can_convert(DType from, DType to);

}  // namespace permafrost
