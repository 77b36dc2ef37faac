#pragma once
#include <cstddef>
#include <vector>

namespace permafrost::reference {

/// a + b, b repeated over the leading axes of a.
template <typename S>
std::vector<S> add(std::vector<S> a, const std::vector<S>& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i % b.size()];
  return a;
}

/// Sum over the leading axes, in index order; `width` elements stay.
template <typename S>
std::vector<S> sum_leading(const std::vector<S>& x, size_t width) {
  std::vector<S> sum(width);
  for (size_t i = 0; i < x.size(); ++i) sum[i % width] += x[i];
  return sum;
}

template <typename S>
std::vector<S> broadcast_leading(const std::vector<S>& x, size_t copies) {
  std::vector<S> out;
  for (size_t i = 0; i < copies; ++i) out.insert(out.end(), x.begin(), x.end());
  return out;
}

/// x[:, begin : end, :] of (batch, tokens, width).
template <typename S>
std::vector<S> slice_tokens(const std::vector<S>& x, size_t batch, size_t tokens, size_t width, size_t begin,
                            size_t end) {
  std::vector<S> out;
  for (size_t b = 0; b < batch; ++b)
    for (size_t t = begin; t < end; ++t)
      for (size_t c = 0; c < width; ++c) out.push_back(x[(b * tokens + t) * width + c]);
  return out;
}

/// Gradient of slice_tokens: zero outside the range.
template <typename S>
std::vector<S> slice_tokens_gradient(const std::vector<S>& dout, size_t batch, size_t tokens, size_t width,
                                     size_t begin, size_t end) {
  std::vector<S> dx(batch * tokens * width);
  size_t i = 0;
  for (size_t b = 0; b < batch; ++b)
    for (size_t t = begin; t < end; ++t)
      for (size_t c = 0; c < width; ++c) dx[(b * tokens + t) * width + c] = dout[i++];
  return dx;
}

/// Parts (batch, tokens[i], width) behind each other along the tokens.
template <typename S>
std::vector<S> concat_tokens(const std::vector<std::vector<S>>& parts, size_t batch, const std::vector<size_t>& tokens,
                             size_t width) {
  std::vector<S> out;
  for (size_t b = 0; b < batch; ++b)
    for (size_t p = 0; p < parts.size(); ++p)
      for (size_t i = 0; i < tokens[p] * width; ++i) out.push_back(parts[p][b * tokens[p] * width + i]);
  return out;
}

/// x (batch, tokens, width) with token `row` replaced by value (batch, width).
template <typename S>
std::vector<S> overwrite_token(std::vector<S> x, const std::vector<S>& value, size_t batch, size_t tokens, size_t width,
                               size_t row) {
  for (size_t b = 0; b < batch; ++b)
    for (size_t c = 0; c < width; ++c) x[(b * tokens + row) * width + c] = value[b * width + c];
  return x;
}

/// x * scale, and the gradient of scale.
template <typename S>
std::vector<S> scale(std::vector<S> x, const S& factor) {
  for (S& value : x) value *= factor;
  return x;
}
template <typename S>
S scale_gradient(const std::vector<S>& x, const std::vector<S>& dy) {
  S sum{};
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * dy[i];
  return sum;
}

}  // namespace permafrost::reference
