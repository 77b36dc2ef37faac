#pragma once
#include <cstdint>

#include "core/kernels/vector_math.h"
#include "core/tensor/dtype.h"

// The arithmetic behind attention.h on CPU. Included by sources for several instruction
// sets: nothing here may become a function that the linker shares between them (hence `static` and plain structs).
namespace permafrost {

class Tensor;
class ThreadPool;
struct AttentionBackward;
struct AttentionForward;
struct Context;

/// attention.h's functions at a chosen level.
void attention_forward_at(SimdLevel level, const Context& context, const AttentionForward& args, Tensor workspace);
void attention_backward_at(SimdLevel level, const Context& context, const AttentionBackward& args, Tensor workspace);

/// One call of attention. Tensors as in attention.h, as plain memory.
struct AttentionCall {
  DType dtype;  // f32 or bf16; on CUDA f16 too
  bool bf16;    // dtype is bf16
  int64_t batch, queries, keys, heads, head_size;
  int64_t stride_q, stride_k, stride_v;  // elements between consecutive tokens
  const void *q, *k, *v;
  void* out;   // backward: read only
  float* lse;  // (B, H, T); forward: may be null
  const void* dout;
  void *dq, *dk, *dv;  // null = not needed
  float scale;
  const int32_t* lengths;       // null = all keys valid
  const int32_t* open_lengths;  // of query 0 under open_first; null = as lengths and open_row_sees_padding say
  const uint8_t* allowed;       // (B, T, S), null = all
  bool causal, open_first, open_row_sees_padding;
};

/// Every mask but `allowed` lets a query see the keys 0 .. n-1 for some n: this n.
static inline int64_t visible_keys(const AttentionCall& call, int64_t b, int64_t t) {
  const int64_t valid = call.lengths ? call.lengths[b] : call.keys;
  if (call.open_first && t == 0) {
    if (call.open_lengths) return call.open_lengths[b];
    return call.open_row_sees_padding ? call.keys : valid;
  }
  return call.causal && t + 1 < valid ? t + 1 : valid;
}

/// The largest visible_keys of the queries [begin, end).
static inline int64_t widest_row(const AttentionCall& call, int64_t b, int64_t begin, int64_t end) {
  int64_t widest = 0;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t n = visible_keys(call, b, t);
    widest = n > widest ? n : widest;
  }
  return widest;
}

static inline const uint8_t* allowed_row(const AttentionCall& call, int64_t b, int64_t t) {
  return call.allowed ? call.allowed + (b * call.queries + t) * call.keys : nullptr;
}

static inline int64_t attention_round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Length of a row of at least n four-byte elements: whole cache lines, an odd number of them, so that the rows of a
/// column fall into different sets of the cache.
static inline int64_t attention_leading(int64_t n) {
  const int64_t lines = (n + 15) / 16;
  return 16 * (lines | 1);
}

/// Cuts one thread's scratch memory into arrays on cache lines. With base 0 it only counts.
struct AttentionScratch {
  uintptr_t base;
  int64_t used = 0;
  float* floats(int64_t count) {
    const uintptr_t at = base + static_cast<uintptr_t>(used);
    used += attention_round_up(count * 4, 64);
    return reinterpret_cast<float*>(at);
  }
  uint32_t* words(int64_t count) { return reinterpret_cast<uint32_t*>(floats(count)); }
};

/// Forward of queries [begin, end) of one (batch, head), with `scratch` for this thread alone.
/// Backward of one (batch, head), all queries.
/// *_general: f32 arithmetic on either dtype. *_amx: bf16 only; products of tiles in bf16 with f32 sums.
void attention_forward_general(const AttentionCall& call, SimdLevel level, int64_t b, int64_t h, int64_t begin,
                               int64_t end, uintptr_t scratch);
void attention_backward_general(const AttentionCall& call, SimdLevel level, int64_t b, int64_t h, uintptr_t scratch);
void attention_forward_amx(const AttentionCall& call, int64_t b, int64_t h, int64_t begin, int64_t end,
                           uintptr_t scratch);
void attention_backward_amx(const AttentionCall& call, int64_t b, int64_t h, uintptr_t scratch);

/// Bytes of scratch per thread.
int64_t attention_scratch_general(bool backward, int64_t keys, int64_t head_size);
int64_t attention_scratch_amx(bool backward, int64_t queries, int64_t keys, int64_t head_size);

/// Whole passes, after the checks.
void attention_forward_cpu(const AttentionCall& call, ThreadPool& pool, SimdLevel level, void* workspace);
void attention_backward_cpu(const AttentionCall& call, ThreadPool& pool, SimdLevel level, void* workspace);

// ---- the parts of *_general that have one version per instruction set

/// c (m x n) = or += a b; element (i, p) of a at a[i * a_row + p * a_col], b (k x n) and c with rows of ldb and ldc.
/// n is a multiple of 16. Every element is one chain of additions in the order of k.
struct AttentionProduct {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_col;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool add;
};

/// Both are 0 and -inf where no key is seen.
struct AttentionRowSum {
  float inverse_sum, lse;
};

struct AttentionOps {
  /// dst (rows x ld) in f32, from rows of n elements `stride` apart; zeros behind each row's end.
  void (*load_rows)(bool bf16, const void* src, int64_t stride, int64_t rows, int64_t n, float* dst, int64_t ld);
  /// Back to the storage dtype; row r times row_scale[r] unless that is null.
  void (*store_rows)(bool bf16, const float* src, int64_t ld, const float* row_scale, int64_t rows, int64_t n,
                     void* dst, int64_t stride);
  void (*transpose)(const float* src, int64_t ld_src, int64_t rows, int64_t columns, float* dst, int64_t ld_dst);
  void (*product)(const AttentionProduct& product);
  float (*dot)(const float* a, const float* b, int64_t n);
  /// In place: raw scores -> e^(scale s - max) where seen, 0 elsewhere, up to `width`.
  AttentionRowSum (*softmax_row)(float* row, int64_t visible, int64_t width, const uint8_t* allowed, float scale);
  /// In place: scores -> probabilities p, dp -> scale p (dp - delta); 0 where not seen, up to `width`.
  void (*backward_row)(float* scores, float* dp, int64_t visible, int64_t width, const uint8_t* allowed, float scale,
                       float lse, float delta);
};
const AttentionOps& attention_ops_portable();
const AttentionOps& attention_ops_avx512();

}  // namespace permafrost
