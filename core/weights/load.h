#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

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

/// One hash over many tensors: SHA-256 of the lines "<name> <dtype> <shape> <sha256 of its bytes>\n" in the order
/// added.
class CombinedHash {
 public:
  void add(std::string_view name, const TensorSpec& spec, std::string_view sha256_of_bytes);
  /// Once.
  std::string finish() { return hash_.finish(); }

 private:
  Sha256 hash_;
};

}  // namespace permafrost
