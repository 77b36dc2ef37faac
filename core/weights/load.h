#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/base/sha256.h"
#include "core/tensor/tensor.h"
#include "core/weights/convert.h"
#include "core/weights/source.h"

namespace permafrost {

/// Files are read in pieces of at most this size, whatever the size of the tensor.
inline constexpr int64_t kLoadChunkBytes = int64_t{8} << 20;

struct LoadOptions {
  bool with_change = false;  ///< find the largest relative change of a value
  bool with_hashes = false;
};

struct LoadedSlice {
  ConvertStatistics statistics;
  std::string file_sha256;    ///< of the bytes read; empty unless asked for
  std::string stored_sha256;  ///< of the bytes as converted; empty unless asked for
};

/// Elements [first_element, first_element + out.size() / size_of(to)) of a tensor, converted to `to` (see
/// convert_block), into `out`, aligned to its elements.
/// Errors: kWeights naming tensor, file and count when values are NaN or infinite, in the file or because `to` cannot
/// hold them, and when the stored dtype cannot become `to`; kInvalidArgument for a range outside the tensor; kStorage.
LoadedSlice load_slice(const WeightSource& source, const SourceTensor& tensor, int64_t first_element, DType to,
                       std::span<std::byte> out, const LoadOptions& options = {});

/// The whole tensor into memory of its shape; the dtype of `out` decides the conversion.
LoadedSlice load_tensor(const WeightSource& source, const SourceTensor& tensor, const Tensor& out,
                        const LoadOptions& options = {});

/// Errors: kWeights naming tensor, file and counts when values were found that are not finite, or too large for `to`.
/// `statistics`: of elements [first_element, first_element + statistics.elements) of the tensor.
void require_usable(const WeightSource& source, const SourceTensor& tensor, int64_t first_element, DType to,
                    const ConvertStatistics& statistics);
/// Errors: kWeights when values of the stored dtype cannot become `to`; kInvalidArgument when elements
/// [first_element, first_element + elements) are not all in the tensor.
void require_range(const WeightSource& source, const SourceTensor& tensor, int64_t first_element, int64_t elements,
                   DType to);

}  // namespace permafrost
