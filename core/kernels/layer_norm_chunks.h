#pragma once
#include <algorithm>
#include <cstdint>

#include "core/base/narrow.h"

// How layer_norm_backward divides rows for the gradients of its parameters, which are sums over all of them: over
// chunks of rows, then over chunks, at most 64 of them on any device.
namespace permafrost {

inline int64_t layer_norm_chunk_rows(int64_t rows) {
  constexpr int64_t kMaxChunks = 64, kMinRows = 32;
  return std::max(kMinRows, div_up(rows, kMaxChunks));
}
inline int64_t layer_norm_chunks(int64_t rows) { return div_up(rows, layer_norm_chunk_rows(rows)); }

/// Numbers from one sum of a chunk to the next in the workspace, which holds those of dgain, then those of dbias, chunk
/// by chunk. Each starts on a cache line.
inline int64_t layer_norm_sum_stride(int64_t width) { return round_up(width, 16); }

}  // namespace permafrost
