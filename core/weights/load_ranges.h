#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor/dtype.h"
#include "core/weights/convert.h"
#include "core/weights/source.h"

namespace permafrost {

/// What is converted shall still be in the processor's cache.
inline constexpr int64_t kRangeChunkBytes = int64_t{1} << 20;

/// Elements [first_element, first_element + elements) of a tensor, and where they go as dtype `to`.
struct ReadRange {
  const SourceTensor* tensor = nullptr;
  int64_t first_element = 0, elements = 0;
  DType to = DType::kF32;
  std::byte* target = nullptr;                    ///< elements * size_of(to) bytes, aligned to an element
  std::vector<const SourceTensor*> aliases = {};  ///< tensors of the same shape, which must hold the same values there
};

struct RangesRead {
  std::vector<ConvertStatistics> statistics;  ///< one for each range
  int64_t bytes = 0;                          ///< of the files, as stored, aliases included
};

/// Reads ranges of one source in the order in which they stand in its files, with pread, each byte once, in chunks of
/// at most kRangeChunkBytes; values are converted (see convert_block) and compared with their aliases on the way: bit
/// by bit, different dtypes as f32. Beside the targets it needs less than 16 MiB. Errors: kWeights naming tensor, file
/// and counts when values of a range are NaN or infinite, or too large for their dtype, or when an alias differs
/// (naming the first row that does); kInvalidArgument for a range outside its tensor; kStorage.
RangesRead load_ranges(const WeightSource& source, std::span<const ReadRange> ranges, bool with_change = false);

}  // namespace permafrost
