#include "core/kernels/attention_cuda.h"

#include "core/base/narrow.h"
#include "core/kernels/attention_library_cuda.h"
#include "core/kernels/attention_view_cuda.h"

namespace permafrost::cuda {

namespace {

constexpr int64_t kTokensAtOnce = 64;  // the largest tile

/// The kernels that a call takes.
enum class Way : uint8_t { kLibrary, kTiles, kPlain };
Way way_of(const Context& context, const AttentionCall& call, bool backward) {
  // Kernels count tokens of one sample in 32 bits.
  for (const int64_t extent : {call.queries, call.keys, call.head_size}) narrow<int>(extent + 2 * kTokensAtOnce);
  if (library_takes(context, call, backward)) return Way::kLibrary;
  return call.dtype != DType::kF32 && call.head_size <= kLargestTiledHead ? Way::kTiles : Way::kPlain;
}

constexpr int kRowLanes = 8;   // lanes that add up one row
constexpr int kGroup = kWide;  // elements that a lane takes at once

/// delta (B, H, T) = rowsum(dout out), of rows (B, T, H) of `size` elements. Four rows per warp; the order of a sum
/// does not depend on `wide`.
template <typename T>
__global__ void delta_kernel(const T* out, const T* dout, float* delta, int64_t rows, int64_t queries, int64_t heads,
                             int64_t size, bool wide) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kRowLanes;
  const int lane = static_cast<int>(threadIdx.x % kRowLanes);
  float sum = 0.0f;
  if (row < rows) {
    for (int64_t i = row * size + lane * kGroup, end = (row + 1) * size; i < end; i += kRowLanes * kGroup) {
      if (wide) {
        const Floats<kGroup> x = load<kGroup>(out + i), y = load<kGroup>(dout + i);
#pragma unroll
        for (int j = 0; j < kGroup; ++j) sum = fmaf(x.v[j], y.v[j], sum);
      } else {
        for (int64_t j = i; j < end && j < i + kGroup; ++j) sum = fmaf(to_float(out[j]), to_float(dout[j]), sum);
      }
    }
  }
#pragma unroll
  for (int offset = kRowLanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (row >= rows || lane != 0) return;
  const int64_t h = row % heads, t = row / heads % queries, b = row / heads / queries;
  delta[(b * heads + h) * queries + t] = sum;
}

void make_delta(const Context& context, const AttentionCall& call, float* delta) {
  const int64_t rows = call.batch * call.queries * call.heads, per_block = kThreads / kRowLanes;
  const auto address = reinterpret_cast<uintptr_t>(call.out) | reinterpret_cast<uintptr_t>(call.dout);
  const bool wide = address % 16 == 0 && call.head_size % kGroup == 0;
  with_dtype(call.dtype, [&]<typename T>(T*) {
    launch(context, delta_kernel<T>, static_cast<unsigned>((rows + per_block - 1) / per_block), kThreads, 0,
           static_cast<const T*>(call.out), static_cast<const T*>(call.dout), delta, rows, call.queries, call.heads,
           call.head_size, wide);
  });
}

}  // namespace

void attention_forward(const Context& context, const AttentionCall& call, void* workspace) {
  switch (way_of(context, call, false)) {
    case Way::kLibrary:
      return attention_forward_library(context, call, workspace);
    case Way::kTiles:
      return attention_forward_tiles(context, call);
    case Way::kPlain:
      return attention_forward_plain(context, call);
  }
}

void attention_backward(const Context& context, const AttentionCall& call, void* workspace) {
  const Way way = way_of(context, call, true);
  if (way == Way::kLibrary) return attention_backward_library(context, call, workspace);
  if (way == Way::kTiles && attention_is_short(call)) return attention_backward_short(context, call);
  float* delta = nullptr;
  if (call.dq || call.dk) {  // dv alone needs none
    const auto mask = static_cast<uintptr_t>(kAttentionAlignment - 1);
    delta = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(workspace) + mask) & ~mask);
    make_delta(context, call, delta);
  }
  way == Way::kTiles ? attention_backward_tiles(context, call, delta) : attention_backward_plain(context, call, delta);
}

}  // namespace permafrost::cuda
