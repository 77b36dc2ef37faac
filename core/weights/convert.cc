#include "core/weights/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "core/device/cpu_features.h"
#include "core/weights/convert_loops.h"

namespace permafrost {

namespace {
constexpr int kRun = 2048;  // values between two dtypes stay in the first-level cache

bool is_narrow_float(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16; }
bool is_float(DType dtype) { return is_narrow_float(dtype) || dtype == DType::kF64; }

const ConvertLoops& loops() { return cpu_features().avx2 ? convert_loops_avx2() : kConvertLoops; }

/// The float next to `value` on the side of zero, with an odd last bit when inexact ("round to odd"): rounding that
/// once more to fewer bits gives the same as rounding the double at once.
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (!std::isfinite(nearest) || static_cast<double>(nearest) == value) {
    // A finite double beyond float becomes the largest float, whose last bit is odd.
    return std::isinf(nearest) && std::isfinite(value) ? std::copysign(0x1.fffffep127f, nearest) : nearest;
  }
  auto bits = std::bit_cast<uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(value)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

ConvertStatistics convert_f64(const double* source, DType to, void* target, int64_t elements, bool with_change) {
  ConvertStatistics statistics;
  statistics.elements = elements;
  for (int64_t i = 0; i < elements; ++i) {
    const double old = source[i];
    double now = 0;
    if (to == DType::kF32) {
      now = static_cast<double>(static_cast<float*>(target)[i] = static_cast<float>(old));
    } else if (to == DType::kBF16) {
      now = static_cast<double>(static_cast<float>(static_cast<bfloat16*>(target)[i] = bfloat16(round_to_odd(old))));
    } else {
      now = static_cast<double>(static_cast<float>(static_cast<float16*>(target)[i] = float16(round_to_odd(old))));
    }
    if (!std::isfinite(old)) {
      ++statistics.non_finite;
    } else if (!std::isfinite(now)) {
      ++statistics.overflowed;
    } else if (with_change && old != 0) {
      statistics.largest_relative_change = std::max(statistics.largest_relative_change, std::abs((now - old) / old));
    }
  }
  return statistics;
}

/// A run as floats: the memory itself when it is f32, otherwise `buffer`.
const float* as_f32(DType dtype, const void* values, float* buffer, int n) {
  if (dtype == DType::kF32) return static_cast<const float*>(values);
  const auto* bits = static_cast<const uint16_t*>(values);
  dtype == DType::kF16 ? loops().f16_to_f32(bits, buffer, n) : loops().bf16_to_f32(bits, buffer, n);
  return buffer;
}

void store_run(const float* values, DType to, void* target, int n) {
  if (to == DType::kF32) {
    std::memcpy(target, values, static_cast<size_t>(n) * sizeof(float));
  } else if (to == DType::kF16) {
    loops().f32_to_f16(values, static_cast<uint16_t*>(target), n);
  } else {
    loops().f32_to_bf16(values, static_cast<uint16_t*>(target), n);
  }
}

ConvertStatistics convert_narrow(DType from, const std::byte* source, DType to, std::byte* target, int64_t elements,
                                 bool with_change) {
  float before_buffer[kRun], after_buffer[kRun];
  ConvertStatistics statistics;
  statistics.elements = elements;
  ConvertCounts counts;
  for (int64_t begin = 0; begin < elements; begin += kRun) {
    const int n = static_cast<int>(std::min<int64_t>(kRun, elements - begin));
    const float* before = as_f32(from, source + begin * size_of(from), before_buffer, n);
    std::byte* out = target + begin * size_of(to);
    store_run(before, to, out, n);
    const float* after = as_f32(to, out, after_buffer, n);
    loops().count(before, after, n, counts);
    if (with_change) loops().change(before, after, n, counts);
    statistics.non_finite += std::exchange(counts.non_finite, 0);
    statistics.overflowed += std::exchange(counts.overflowed, 0);
  }
  statistics.largest_relative_change = static_cast<double>(std::bit_cast<float>(counts.change_bits));
  return statistics;
}

int64_t count_narrow(DType dtype, const std::byte* values, int64_t elements) {
  float buffer[kRun];
  int64_t non_finite = 0;
  for (int64_t begin = 0; begin < elements; begin += kRun) {
    const int n = static_cast<int>(std::min<int64_t>(kRun, elements - begin));
    const float* run = as_f32(dtype, values + begin * size_of(dtype), buffer, n);
    ConvertCounts counts;
    loops().count(run, run, n, counts);
    non_finite += counts.non_finite;
  }
  return non_finite;
}
}  // namespace

void ConvertStatistics::add(const ConvertStatistics& other) {
  elements += other.elements;
  non_finite += other.non_finite;
  overflowed += other.overflowed;
  largest_relative_change = std::max(largest_relative_change, other.largest_relative_change);
}

bool can_convert(DType from, DType to) { return from == to || (is_float(from) && is_narrow_float(to)); }

ConvertStatistics convert_block(DType from, const void* source, DType to, void* target, int64_t elements,
                                bool with_change) {
  PERMAFROST_CHECK(can_convert(from, to), "convert_block: floats become f32, f16 or bf16; got ", to_string(from),
                   " to ", to_string(to));
  const auto* in = static_cast<const std::byte*>(source);
  auto* out = static_cast<std::byte*>(target);
  if (from == to) {
    if (elements > 0) std::memcpy(out, in, static_cast<size_t>(elements * size_of(from)));
    return count_block(from, source, elements);
  }
  if (is_narrow_float(from)) return convert_narrow(from, in, to, out, elements, with_change);
  return convert_f64(static_cast<const double*>(source), to, target, elements, with_change);
}

ConvertStatistics count_block(DType dtype, const void* values, int64_t elements) {
  ConvertStatistics statistics;
  statistics.elements = elements;
  if (is_narrow_float(dtype)) {
    statistics.non_finite = count_narrow(dtype, static_cast<const std::byte*>(values), elements);
  } else if (dtype == DType::kF64) {
    const auto* doubles = static_cast<const double*>(values);
    statistics.non_finite =
        std::count_if(doubles, doubles + elements, [](double value) { return !std::isfinite(value); });
  }
  return statistics;
}

}  // namespace permafrost
