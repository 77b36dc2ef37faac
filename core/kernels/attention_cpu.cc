#include "core/kernels/attention_cpu.h"

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "core/base/narrow.h"
#include "core/device/thread_pool.h"

namespace permafrost {

namespace {
constexpr int64_t kQueryBlock = 256;  // queries of one forward block: a constant, so that blocks follow from the shape
constexpr int64_t kTile = 24;         // queries whose scores are held at once: four register blocks of six

struct Buffers {
  int64_t ld_keys, ld_size;
  float *k_transposed, *v, *piece;      // both passes; v holds V forward and V^T backward
  float *k, *dk, *dv, *dout, *dscores;  // backward alone
  float *q, *scores, *out;              // of one tile
};

Buffers lay_out(bool backward, int64_t keys, int64_t head_size, AttentionScratch& scratch) {
  Buffers b{};
  const int64_t padded_keys = round_up(keys, 16);
  b.ld_keys = attention_leading(keys);
  b.ld_size = round_up(head_size, 16);
  b.k_transposed = scratch.floats(head_size * b.ld_keys);
  b.v = scratch.floats(backward ? head_size * b.ld_keys : padded_keys * b.ld_size);
  b.piece = scratch.floats(16 * b.ld_size);
  b.q = scratch.floats(kTile * b.ld_size);
  b.scores = scratch.floats(kTile * b.ld_keys);
  b.out = scratch.floats(kTile * b.ld_size);
  if (!backward) return b;
  b.k = scratch.floats(padded_keys * b.ld_size);
  b.dk = scratch.floats(padded_keys * b.ld_size);
  b.dv = scratch.floats(padded_keys * b.ld_size);
  b.dout = scratch.floats(kTile * b.ld_size);
  b.dscores = scratch.floats(kTile * b.ld_keys);
  return b;
}

/// Where the rows of one (batch, head) begin in a tensor (B, tokens, H, D) with `stride` between tokens.
template <typename Pointer>
Pointer* head_begin(Pointer* base, const AttentionCall& call, int64_t b, int64_t h, int64_t token, int64_t tokens,
                    int64_t stride) {
  using Byte = std::conditional_t<std::is_const_v<Pointer>, const std::byte, std::byte>;
  const int64_t element = (b * tokens + token) * stride + h * call.head_size;
  return base ? static_cast<Byte*>(base) + element * (call.bf16 ? 2 : 4) : nullptr;
}

/// dst (D x ld) = transpose of the first `width` of the rows, zeros up to the next multiple of 16 columns.
void load_transposed(const AttentionOps& ops, const AttentionCall& call, const void* rows, int64_t stride,
                     int64_t width, const Buffers& buffers, float* dst) {
  const int64_t bytes = call.bf16 ? 2 : 4;
  for (int64_t s = 0; s < width; s += 16) {
    const int64_t count = std::min<int64_t>(16, width - s);
    const auto* from = static_cast<const std::byte*>(rows) + s * stride * bytes;
    ops.load_rows(call.bf16, from, stride, count, call.head_size, buffers.piece, buffers.ld_size);
    std::fill(buffers.piece + count * buffers.ld_size, buffers.piece + 16 * buffers.ld_size, 0.0f);
    ops.transpose(buffers.piece, buffers.ld_size, 16, call.head_size, dst + s, buffers.ld_keys);
  }
}

/// dst (width rounded up to 16, x ld_size) = the first `width` of the rows, zeros behind.
void load_padded(const AttentionOps& ops, const AttentionCall& call, const void* rows, int64_t stride, int64_t width,
                 const Buffers& buffers, float* dst) {
  ops.load_rows(call.bf16, rows, stride, width, call.head_size, dst, buffers.ld_size);
  std::fill(dst + width * buffers.ld_size, dst + round_up(width, 16) * buffers.ld_size, 0.0f);
}

const AttentionOps& ops_for(SimdLevel level) {
  return level >= SimdLevel::kAvx512 ? attention_ops_avx512() : attention_ops_portable();
}

/// One tile of queries, backward: adds to buffers.dk and .dv, writes dq.
void backward_tile(const AttentionCall& call, const AttentionOps& ops, const Buffers& buffers, int64_t b, int64_t h,
                   int64_t begin, int64_t rows) {
  const int64_t size = call.head_size, contiguous = call.heads * size, ld = buffers.ld_size, ldk = buffers.ld_keys;
  const int64_t width = round_up(widest_row(call, b, begin, begin + rows), 16);
  const bool need_scores = call.dq || call.dk;
  ops.load_rows(call.bf16, head_begin(call.q, call, b, h, begin, call.queries, call.stride_q), call.stride_q, rows,
                size, buffers.q, ld);
  ops.load_rows(call.bf16, head_begin(call.dout, call, b, h, begin, call.queries, contiguous), contiguous, rows, size,
                buffers.dout, ld);
  ops.load_rows(call.bf16, head_begin<const void>(call.out, call, b, h, begin, call.queries, contiguous), contiguous,
                rows, size, buffers.out, ld);
  ops.product({rows, width, size, buffers.q, ld, 1, buffers.k_transposed, ldk, buffers.scores, ldk, false});
  if (need_scores) ops.product({rows, width, size, buffers.dout, ld, 1, buffers.v, ldk, buffers.dscores, ldk, false});
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = begin + r;
    const float delta = ops.dot(buffers.dout + r * ld, buffers.out + r * ld, size);
    if (!need_scores) std::fill_n(buffers.dscores + r * ldk, width, 0.0f);
    ops.backward_row(buffers.scores + r * ldk, buffers.dscores + r * ldk, visible_keys(call, b, t), width,
                     allowed_row(call, b, t), call.scale, call.lse[(b * call.heads + h) * call.queries + t], delta);
  }
  if (call.dv) ops.product({width, ld, rows, buffers.scores, 1, ldk, buffers.dout, ld, buffers.dv, ld, true});
  if (call.dk) ops.product({width, ld, rows, buffers.dscores, 1, ldk, buffers.q, ld, buffers.dk, ld, true});
  if (call.dq) {
    ops.product({rows, ld, width, buffers.dscores, ldk, 1, buffers.k, ld, buffers.out, ld, false});
    ops.store_rows(call.bf16, buffers.out, ld, nullptr, rows, size,
                   head_begin(call.dq, call, b, h, begin, call.queries, call.stride_q), call.stride_q);
  }
}
}  // namespace

void attention_forward_general(const AttentionCall& call, SimdLevel level, int64_t b, int64_t h, int64_t begin,
                               int64_t end, uintptr_t memory) {
  const AttentionOps& ops = ops_for(level);
  AttentionScratch scratch{memory};
  const Buffers buffers = lay_out(false, call.keys, call.head_size, scratch);
  const int64_t size = call.head_size, contiguous = call.heads * size, ld = buffers.ld_size, ldk = buffers.ld_keys;
  const int64_t seen = widest_row(call, b, begin, end);
  load_transposed(ops, call, head_begin(call.k, call, b, h, 0, call.keys, call.stride_k), call.stride_k, seen, buffers,
                  buffers.k_transposed);
  load_padded(ops, call, head_begin(call.v, call, b, h, 0, call.keys, call.stride_v), call.stride_v, seen, buffers,
              buffers.v);
  for (int64_t tile = begin; tile < end; tile += kTile) {
    const int64_t rows = std::min(kTile, end - tile);
    const int64_t width = round_up(widest_row(call, b, tile, tile + rows), 16);
    ops.load_rows(call.bf16, head_begin(call.q, call, b, h, tile, call.queries, call.stride_q), call.stride_q, rows,
                  size, buffers.q, ld);
    ops.product({rows, width, size, buffers.q, ld, 1, buffers.k_transposed, ldk, buffers.scores, ldk, false});
    float inverse_sums[kTile];
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t t = tile + r;
      const AttentionRowSum sum = ops.softmax_row(buffers.scores + r * ldk, visible_keys(call, b, t), width,
                                                  allowed_row(call, b, t), call.scale);
      inverse_sums[r] = sum.inverse_sum;
      if (call.lse) call.lse[(b * call.heads + h) * call.queries + t] = sum.lse;
    }
    ops.product({rows, ld, width, buffers.scores, ldk, 1, buffers.v, ld, buffers.out, ld, false});
    ops.store_rows(call.bf16, buffers.out, ld, inverse_sums, rows, size,
                   head_begin(call.out, call, b, h, tile, call.queries, contiguous), contiguous);
  }
}

void attention_backward_general(const AttentionCall& call, SimdLevel level, int64_t b, int64_t h, uintptr_t memory) {
  const AttentionOps& ops = ops_for(level);
  AttentionScratch scratch{memory};
  const Buffers buffers = lay_out(true, call.keys, call.head_size, scratch);
  const int64_t size = call.head_size, ld = buffers.ld_size;
  const int64_t seen = widest_row(call, b, 0, call.queries);
  const void* k = head_begin(call.k, call, b, h, 0, call.keys, call.stride_k);
  const void* v = head_begin(call.v, call, b, h, 0, call.keys, call.stride_v);
  load_transposed(ops, call, k, call.stride_k, seen, buffers, buffers.k_transposed);
  if (call.dq || call.dk) load_transposed(ops, call, v, call.stride_v, seen, buffers, buffers.v);
  if (call.dq) load_padded(ops, call, k, call.stride_k, seen, buffers, buffers.k);
  // Keys that nobody sees get gradient 0 as well.
  if (call.dk) std::fill_n(buffers.dk, round_up(call.keys, 16) * ld, 0.0f);
  if (call.dv) std::fill_n(buffers.dv, round_up(call.keys, 16) * ld, 0.0f);
  for (int64_t tile = 0; tile < call.queries; tile += kTile)
    backward_tile(call, ops, buffers, b, h, tile, std::min(kTile, call.queries - tile));
  if (call.dk)
    ops.store_rows(call.bf16, buffers.dk, ld, nullptr, call.keys, size,
                   head_begin(call.dk, call, b, h, 0, call.keys, call.stride_k), call.stride_k);
  if (call.dv)
    ops.store_rows(call.bf16, buffers.dv, ld, nullptr, call.keys, size,
                   head_begin(call.dv, call, b, h, 0, call.keys, call.stride_v), call.stride_v);
}

int64_t attention_scratch_general(bool backward, int64_t keys, int64_t head_size) {
  AttentionScratch scratch{0};
  lay_out(backward, keys, head_size, scratch);
  return scratch.used;
}

namespace {
/// Each thread's part of the workspace.
struct Parts {
  uintptr_t begin;
  int64_t bytes;
  uintptr_t of(int thread) const { return begin + static_cast<uintptr_t>(thread * bytes); }
};

Parts part_workspace(const AttentionCall& call, bool backward, SimdLevel level, void* workspace) {
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(workspace) + 63) & ~uintptr_t{63};
  const bool amx = call.bf16 && level >= SimdLevel::kAmx;
  return {begin, amx ? attention_scratch_amx(backward, call.queries, call.keys, call.head_size)
                     : attention_scratch_general(backward, call.keys, call.head_size)};
}
}  // namespace

void attention_forward_cpu(const AttentionCall& call, ThreadPool& pool, SimdLevel level, void* workspace) {
  const Parts parts = part_workspace(call, false, level, workspace);
  const int64_t blocks_per_head = div_up(call.queries, kQueryBlock);
  pool.run(call.batch * call.heads * blocks_per_head, [&](int64_t block, int thread) {
    const int64_t head = block / blocks_per_head, b = head / call.heads, h = head % call.heads;
    const int64_t begin = block % blocks_per_head * kQueryBlock, end = std::min(call.queries, begin + kQueryBlock);
    if (call.bf16 && level >= SimdLevel::kAmx) return attention_forward_amx(call, b, h, begin, end, parts.of(thread));
    attention_forward_general(call, level, b, h, begin, end, parts.of(thread));
  });
}

void attention_backward_cpu(const AttentionCall& call, ThreadPool& pool, SimdLevel level, void* workspace) {
  const Parts parts = part_workspace(call, true, level, workspace);
  pool.run(call.batch * call.heads, [&](int64_t block, int thread) {
    const int64_t b = block / call.heads, h = block % call.heads;
    if (call.bf16 && level >= SimdLevel::kAmx) return attention_backward_amx(call, b, h, parts.of(thread));
    attention_backward_general(call, level, b, h, parts.of(thread));
  });
}

}  // namespace permafrost
