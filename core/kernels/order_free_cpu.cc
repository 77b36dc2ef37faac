#include "core/kernels/order_free_cpu.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>

#include "core/device/cpu_features.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/flat_pieces.h"

namespace permafrost::cpu {
namespace {

constexpr int64_t kBlock = 16384;

uint32_t magnitude(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

// Sums wrap instead of overflowing; they cannot wrap while at most G allowed values are added.
int64_t add(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }

/// body(begin, end) -> bits of the largest magnitude, over blocks in any order.
template <typename Body>
void for_ranges_with_maximum(const Context& context, int64_t n, const Tensor& range, Body body) {
  int32_t& result = *range.data<int32_t>();
  std::atomic<uint32_t> largest = static_cast<uint32_t>(result);
  for_ranges(context, n, kBlock, [&](int64_t begin, int64_t end) {
    const uint32_t mine = body(begin, end);
    uint32_t seen = largest.load(std::memory_order_relaxed);
    while (seen < mine && !largest.compare_exchange_weak(seen, mine, std::memory_order_relaxed)) {
    }
  });
  result = static_cast<int32_t>(largest.load(std::memory_order_relaxed));
}

}  // namespace

uint32_t limit_bits(int32_t exponent) {
  return std::min(std::bit_cast<uint32_t>(static_cast<float>(std::ldexp(1.0, std::min(exponent, 128)))), 0x7f800000u);
}

uint32_t order_free_loop_baseline(OrderFreeScale scale, const float* gradient, int64_t* sums, int64_t n,
                                  GradMode mode) {
  const uint32_t limit = limit_bits(scale.exponent);
  const double factor = std::ldexp(1.0, scale.shift);
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = magnitude(gradient[i]);
    largest = std::max(largest, bits);
    const int64_t value = bits < limit ? std::llrint(static_cast<double>(gradient[i]) * factor) : 0;
    sums[i] = mode == GradMode::kAdd ? add(sums[i], value) : value;
  }
  return largest;
}

void order_free_add(const Context& context, Tensor at, Tensor gradient, Tensor sums, GradMode mode, Tensor range) {
  const OrderFreeScale scale{at.data<int32_t>()[0], at.data<int32_t>()[1]};
  const OrderFreeLoop loop = cpu_features().avx512 ? order_free_loop_avx512 : order_free_loop_baseline;
  for_ranges_with_maximum(context, gradient.elements(), range, [&](int64_t begin, int64_t end) {
    return loop(scale, gradient.data<float>() + begin, sums.data<int64_t>() + begin, end - begin, mode);
  });
}

void gradient_range(const Context& context, Tensor gradient, Tensor range) {
  for_ranges_with_maximum(context, gradient.elements(), range, [&](int64_t begin, int64_t end) {
    const float* values = gradient.data<float>();
    uint32_t largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, magnitude(values[i]));
    return largest;
  });
}

void order_free_value(const Context& context, OrderFreeScale scale, Tensor sums, Tensor gradient) {
  const double factor = std::ldexp(1.0, -scale.shift);
  for_ranges(context, sums.elements(), kBlock, [&](int64_t begin, int64_t end) {
    const int64_t* from = sums.data<int64_t>();
    float* to = gradient.data<float>();
    for (int64_t i = begin; i < end; ++i) to[i] = static_cast<float>(static_cast<double>(from[i]) * factor);
  });
}

void order_free_values(const Context& context, Tensor pieces, Tensor scales, Tensor sums, Tensor slice) {
  for (const FlatPiece& piece : pieces_of(pieces)) {
    const int32_t* scale = scales.data<int32_t>() + 2 * piece.row;
    const int64_t end = piece.begin + piece.elements;
    cpu::order_free_value(context, OrderFreeScale{scale[0], scale[1]}, sums.rows(piece.begin, end),
                          slice.rows(piece.begin, end));
  }
}

void norm_of_blocks(const Context&, Tensor sums, double clip_norm, Tensor norm, Tensor clip, Tensor apply) {
  double sum = 0;
  for (int64_t b = 0; b < sums.elements(); ++b) sum += sums.data<double>()[b];
  const double root = std::sqrt(sum);
  *norm.data<double>() = root;
  *clip.data<float>() = static_cast<float>(clip_norm > 0 ? std::min(1.0, clip_norm / (root + 1e-6)) : 1.0);
  *apply.data<int32_t>() = std::isfinite(root) ? 1 : 0;
}

void plain_add(const Context& context, Tensor gradient, Tensor sums, GradMode mode, Tensor range) {
  for_ranges_with_maximum(context, gradient.elements(), range, [&](int64_t begin, int64_t end) {
    const float* from = gradient.data<float>();
    float* to = sums.data<float>();
    uint32_t largest = 0;
    for (int64_t i = begin; i < end; ++i) {
      largest = std::max(largest, magnitude(from[i]));
      to[i] = mode == GradMode::kAdd ? to[i] + from[i] : from[i];
    }
    return largest;
  });
}

void block_square_sums(const Context& context, Tensor values, Tensor sums) {
  for_ranges(context, values.elements(), kSquareSumBlock, [&](int64_t begin, int64_t end) {
    const float* x = values.data<float>();
    std::array<double, 8> partial{};
    int64_t i = begin;
    for (; i + 8 <= end; i += 8)
      for (int64_t lane = 0; lane < 8; ++lane) {
        const double v = x[i + lane];
        partial[static_cast<size_t>(lane)] += v * v;
      }
    for (int64_t lane = 0; i + lane < end; ++lane) {
      const double v = x[i + lane];
      partial[static_cast<size_t>(lane)] += v * v;
    }
    sums.data<double>()[begin / kSquareSumBlock] = ((partial[0] + partial[4]) + (partial[2] + partial[6])) +
                                                   ((partial[1] + partial[5]) + (partial[3] + partial[7]));
  });
}

}  // namespace permafrost::cpu
