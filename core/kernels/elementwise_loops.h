#pragma once
#include <cstring>

#include "core/kernels/elementwise.h"
#include "core/kernels/float_bits.h"

// Compiled once per instruction set (elementwise_cpu.cc, elementwise_avx512.cc). `ivdep`: runs either do not overlap or
// are the same run, so no iteration reads what another one writes.
namespace permafrost::cpu {
namespace {

template <typename From, typename To>
void convert_run(const void* source, void* target, int64_t n) {
  const From* from = static_cast<const From*>(source);
  To* to = static_cast<To*>(target);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) store(load(from + i), to + i);
}

template <typename From, typename To>
void accumulate_run(const void* source, void* target, int64_t n) {
  const From* from = static_cast<const From*>(source);
  To* to = static_cast<To*>(target);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) store(load(to + i) + load(from + i), to + i);
}

template <typename A, typename B>
void add_run(const void* a_run, const void* b_run, void* out_run, int64_t n) {
  const A* a = static_cast<const A*>(a_run);
  const B* b = static_cast<const B*>(b_run);
  A* out = static_cast<A*>(out_run);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) store(load(a + i) + load(b + i), out + i);
}

template <typename T>
void scale_run(float factor, const T* x, T* out, int64_t n, GradMode mode) {
  if (mode == GradMode::kAdd) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) store(load(out + i) + factor * load(x + i), out + i);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) store(factor * load(x + i), out + i);
  }
}

/// 0, 1, 2 for f32, bf16, f16: rows and columns of the tables below.
PERMAFROST_INLINE int table_index(DType dtype) { return dtype == DType::kF32 ? 0 : dtype == DType::kBF16 ? 1 : 2; }

using Run2 = void (*)(const void*, void*, int64_t);
using Run3 = void (*)(const void*, const void*, void*, int64_t);

void convert_any(DType from, const void* source, DType to, void* target, int64_t n) {
  static constexpr Run2 kTable[3][3] = {{nullptr, convert_run<float, bfloat16>, convert_run<float, float16>},
                                        {convert_run<bfloat16, float>, nullptr, convert_run<bfloat16, float16>},
                                        {convert_run<float16, float>, convert_run<float16, bfloat16>, nullptr}};
  if (n <= 0) return;
  if (from == to) {
    if (source != target) std::memcpy(target, source, static_cast<size_t>(n) * (from == DType::kF32 ? 4 : 2));
  } else {
    kTable[table_index(from)][table_index(to)](source, target, n);
  }
}

void accumulate_any(DType from, const void* source, DType to, void* target, int64_t n) {
  static constexpr Run2 kTable[3][3] = {
      {accumulate_run<float, float>, accumulate_run<float, bfloat16>, accumulate_run<float, float16>},
      {accumulate_run<bfloat16, float>, accumulate_run<bfloat16, bfloat16>, accumulate_run<bfloat16, float16>},
      {accumulate_run<float16, float>, accumulate_run<float16, bfloat16>, accumulate_run<float16, float16>}};
  kTable[table_index(from)][table_index(to)](source, target, n);
}

void add_any(DType dtype, const void* a, DType b_dtype, const void* b, void* out, int64_t n) {
  static constexpr Run3 kTable[3][3] = {
      {add_run<float, float>, add_run<float, bfloat16>, add_run<float, float16>},
      {add_run<bfloat16, float>, add_run<bfloat16, bfloat16>, add_run<bfloat16, float16>},
      {add_run<float16, float>, add_run<float16, bfloat16>, add_run<float16, float16>}};
  kTable[table_index(dtype)][table_index(b_dtype)](a, b, out, n);
}

void scale_any(DType dtype, float factor, const void* x, void* out, int64_t n, GradMode mode) {
  if (dtype == DType::kF32) {
    scale_run(factor, static_cast<const float*>(x), static_cast<float*>(out), n, mode);
  } else {
    scale_run(factor, static_cast<const bfloat16*>(x), static_cast<bfloat16*>(out), n, mode);
  }
}

}  // namespace
}  // namespace permafrost::cpu
