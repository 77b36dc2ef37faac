#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/kernels/attention.h"
#include "tests/support/gradient_check.h"

namespace permafrost::reference {

struct AttentionSizes {
  size_t batch, queries, keys, heads, size;
  size_t q(size_t b, size_t t, size_t h, size_t d) const { return ((b * queries + t) * heads + h) * size + d; }
  size_t k(size_t b, size_t s, size_t h, size_t d) const { return ((b * keys + s) * heads + h) * size + d; }
  size_t row(size_t b, size_t h, size_t t) const { return (b * heads + h) * queries + t; }
  size_t pair(size_t b, size_t t, size_t s) const { return (b * queries + t) * keys + s; }
  size_t q_elements() const { return batch * queries * heads * size; }
  size_t k_elements() const { return batch * keys * heads * size; }
};

/// [B, T, S]: 1 where query t of sample b sees key s. `lengths`, `open_lengths` and `allowed` may be empty.
inline std::vector<uint8_t> visibility(const AttentionSizes& n, MaskKind kind, const std::vector<int64_t>& lengths,
                                       const std::vector<int64_t>& open_lengths, const std::vector<uint8_t>& allowed,
                                       bool open_row_sees_padding) {
  std::vector<uint8_t> seen(n.batch * n.queries * n.keys);
  for (size_t b = 0; b < n.batch; ++b)
    for (size_t t = 0; t < n.queries; ++t)
      for (size_t s = 0; s < n.keys; ++s) {
        const bool valid = lengths.empty() || static_cast<int64_t>(s) < lengths[b];
        bool sees = valid;
        if (kind == MaskKind::kCausal) sees = valid && s <= t;
        if (kind == MaskKind::kCausalOpenFirst) sees = t == 0 ? valid || open_row_sees_padding : valid && s <= t;
        if (kind == MaskKind::kCausalOpenFirst && t == 0 && !open_lengths.empty())
          sees = static_cast<int64_t>(s) < open_lengths[b];
        if (kind == MaskKind::kExplicit) sees = valid && allowed[n.pair(b, t, s)] != 0;
        seen[n.pair(b, t, s)] = sees;
      }
  return seen;
}

template <typename S>
struct Attention {
  std::vector<S> out, lse;
  std::vector<S> p;  // [B, H, T, S]
};

template <typename S>
Attention<S> attention(const AttentionSizes& n, const std::vector<uint8_t>& seen, double scale, const std::vector<S>& q,
                       const std::vector<S>& k, const std::vector<S>& v) {
  using std::exp, std::log, std::max;
  Attention<S> result{std::vector<S>(n.q_elements(), S(0.0)), {}, {}};
  for (size_t b = 0; b < n.batch; ++b)
    for (size_t h = 0; h < n.heads; ++h)
      for (size_t t = 0; t < n.queries; ++t) {
        std::vector<S> scores(n.keys, S(0.0));
        S top = -std::numeric_limits<double>::infinity(), sum = 0.0;
        for (size_t s = 0; s < n.keys; ++s) {
          if (!seen[n.pair(b, t, s)]) continue;
          for (size_t d = 0; d < n.size; ++d) scores[s] += q[n.q(b, t, h, d)] * k[n.k(b, s, h, d)];
          scores[s] *= scale;
          top = max(top, scores[s]);
        }
        for (size_t s = 0; s < n.keys; ++s)
          if (seen[n.pair(b, t, s)]) sum += exp(scores[s] - top);
        const bool empty = testing::value_of(sum) == 0.0;
        for (size_t s = 0; s < n.keys; ++s) {
          const S p = seen[n.pair(b, t, s)] ? exp(scores[s] - top) / sum : S(0.0);
          result.p.push_back(p);
          for (size_t d = 0; d < n.size && seen[n.pair(b, t, s)]; ++d)
            result.out[n.q(b, t, h, d)] += p * v[n.k(b, s, h, d)];
        }
        result.lse.push_back(empty ? S(-std::numeric_limits<double>::infinity()) : top + log(sum));
      }
  return result;
}

/// Gradients, and for each the largest over its elements of the sum of its terms' magnitudes.
struct AttentionGradients {
  std::vector<double> dq, dk, dv;
  double dq_magnitude = 0, dk_magnitude = 0, dv_magnitude = 0;
};

/// The backward formula with D = rowsum(dout out) from the given `out` (a kernel has it rounded).
inline AttentionGradients attention_gradients(const AttentionSizes& n, double scale, const std::vector<double>& p,
                                              const std::vector<double>& q, const std::vector<double>& k,
                                              const std::vector<double>& v, const std::vector<double>& out,
                                              const std::vector<double>& dout) {
  AttentionGradients g{std::vector<double>(q.size()), std::vector<double>(k.size()), std::vector<double>(k.size())};
  std::vector<double> sizes_q(q.size()), sizes_k(k.size()), sizes_v(k.size());
  for (size_t b = 0; b < n.batch; ++b)
    for (size_t h = 0; h < n.heads; ++h)
      for (size_t t = 0; t < n.queries; ++t) {
        double delta = 0;
        for (size_t d = 0; d < n.size; ++d) delta += dout[n.q(b, t, h, d)] * out[n.q(b, t, h, d)];
        for (size_t s = 0; s < n.keys; ++s) {
          const double probability = p[n.row(b, h, t) * n.keys + s];
          double dp = 0;
          for (size_t d = 0; d < n.size; ++d) dp += dout[n.q(b, t, h, d)] * v[n.k(b, s, h, d)];
          const double ds = scale * probability * (dp - delta);
          for (size_t d = 0; d < n.size; ++d) {
            const size_t i = n.q(b, t, h, d), j = n.k(b, s, h, d);
            g.dq[i] += ds * k[j], sizes_q[i] += std::abs(ds * k[j]);
            g.dk[j] += ds * q[i], sizes_k[j] += std::abs(ds * q[i]);
            g.dv[j] += probability * dout[i], sizes_v[j] += std::abs(probability * dout[i]);
          }
        }
      }
  const auto largest = [](const std::vector<double>& x) {
    return x.empty() ? 0.0 : *std::max_element(x.begin(), x.end());
  };
  g.dq_magnitude = largest(sizes_q), g.dk_magnitude = largest(sizes_k), g.dv_magnitude = largest(sizes_v);
  return g;
}

}  // namespace permafrost::reference
