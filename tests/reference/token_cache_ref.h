#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace permafrost::reference {

/// cache (rows, tokens, width) with x (batch, t, width) written from positions[b] on into the rows of each b.
template <typename S>
std::vector<S> write_tokens(std::vector<S> cache, const std::vector<S>& x, const std::vector<int32_t>& positions,
                            size_t rows, size_t tokens, size_t t, size_t width) {
  const size_t copies = rows / positions.size();
  for (size_t r = 0; r < rows; ++r)
    for (size_t j = 0; j < t; ++j)
      for (size_t c = 0; c < width; ++c)
        cache[(r * tokens + static_cast<size_t>(positions[r / copies]) + j) * width + c] =
            x[(r / copies * t + j) * width + c];
  return cache;
}

/// Of each row the first lengths[r] tokens become those of row from[r] of the cache given.
template <typename S>
std::vector<S> select_rows(const std::vector<S>& cache, const std::vector<int32_t>& from,
                           const std::vector<int32_t>& lengths, size_t tokens, size_t width) {
  std::vector<S> result = cache;
  for (size_t r = 0; r < from.size(); ++r)
    for (size_t e = 0; e < static_cast<size_t>(lengths[r]) * width; ++e)
      result[r * tokens * width + e] = cache[static_cast<size_t>(from[r]) * tokens * width + e];
  return result;
}

}  // namespace permafrost::reference
