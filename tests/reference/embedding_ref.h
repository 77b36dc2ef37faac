#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace permafrost::reference {

/// out[r] = table[ids[r]], rows of `width`.
template <typename S>
std::vector<S> embedding(const std::vector<int32_t>& ids, const std::vector<S>& table, size_t width) {
  std::vector<S> out;
  for (int32_t id : ids)
    for (size_t c = 0; c < width; ++c) out.push_back(table[static_cast<size_t>(id) * width + c]);
  return out;
}

/// dtable = base; dtable[ids[r]] += dout[r], in row order.
template <typename S>
std::vector<S> embedding_gradient(const std::vector<int32_t>& ids, const std::vector<S>& dout, std::vector<S> base,
                                  size_t width) {
  for (size_t r = 0; r < ids.size(); ++r)
    for (size_t c = 0; c < width; ++c) base[static_cast<size_t>(ids[r]) * width + c] += dout[r * width + c];
  return base;
}

}  // namespace permafrost::reference
