#include "core/kernels/layer_norm_cuda.h"

#include "core/kernels/layer_norm_chunks.h"
#include "core/kernels/rows_cuda.h"

namespace permafrost::cuda {

namespace {

// Chunks of a row that a thread keeps between passes: all of a row of a warp, and up to 8192 numbers of one of a block.
constexpr int kKeptByWarp = 4, kKeptByBlock = 2;
static_assert(kKeptByWarp * kChunk * 32 >= kWarpWidth);

/// Blocks of rows of warps that a processor is to hold: as many rows at once as a batch of images has for each.
constexpr int kWarpBlocks = 6;
// Most threads of a block that has a row, and how many such blocks a processor is to hold, by registers. Rows of up to
// 4096 numbers leave room for several.
constexpr int kSomeThreads = 256, kForwardBlocks = 3, kBackwardBlocks = 2;
constexpr int kForwardWarps = 24, kBackwardWarps = 20;  // of bf16: 80 and 96 registers
constexpr int kAddingBlocks =
    2;  // of a forward that makes x first, and fetches two rows for each: 96 registers of bf16
template <typename T>
constexpr int kAddingWarps = sizeof(T) == 2 ? 20 : 16;
static_assert(2 * kSomeThreads * kChunk == 4096 && kKeptByBlock == 2);  // row_threads: two chunks for each thread

template <typename T>
struct Forward {
  T* x;  ///< written where a and b are given, otherwise read alone
  const T *a, *b;
  const float *gain, *bias;
  T* y;
  float *mean, *rstd;
  int64_t rows, width;
  float eps;
};

template <typename T>
__device__ inline void keep_statistics(const Forward<T>& a, int64_t row, float mean, float rstd) {
  if (a.mean) a.mean[row] = mean;
  if (a.rstd) a.rstd[row] = rstd;
}

/// Sum of (x - mean)^2.
template <bool wide>
__device__ inline float squares_of(Floats<kChunk> x, float mean, int64_t chunk, int64_t width) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    const float d = x.v[i] - mean;
    x.v[i] = in_row<wide>(chunk, i, width) ? d * d : 0.0f;
  }
  return chunk_sum(x);
}

template <bool wide, typename T>
__device__ inline void normalise(Floats<kChunk> x, float mean, float rstd, const Floats<kChunk>& gain,
                                 const Floats<kChunk>& bias, T* y, int64_t chunk, int64_t width) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) x.v[i] = fmaf((x.v[i] - mean) * rstd, gain.v[i], bias.v[i]);
  store_chunk<wide>(x, y, chunk, width);
}

/// Makes a chunk of x.
template <bool wide, typename T>
__device__ inline Floats<kChunk> put_sum(const Stored<T>& a, const Stored<T>& b, T* x, int64_t chunk, int64_t width) {
  const Stored<T> sum = sum_of(a, b);
  store_stored<wide>(sum, x, chunk, width);
  return to_floats(sum);
}

/// A row of a warp. sums: x = a + b is made first.
template <typename T, bool wide, bool sums>
__global__ void __launch_bounds__(32 * kWarpRows, kWarpBlocks) forward_kernel(Forward<T> a) {
  each_row(a.rows, [&](int64_t row) {
    const int64_t first = row * a.width;
    const float count = static_cast<float>(a.width);
    const auto load_x = [&](int64_t chunk) {  // once for each chunk: a warp keeps all of a row
      if constexpr (sums)
        return put_sum<wide>(load_stored<wide>(a.a + first, chunk, a.width),
                             load_stored<wide>(a.b + first, chunk, a.width), a.x + first, chunk, a.width);
      else
        return load_chunk<wide>(a.x + first, chunk, a.width);
    };
    Floats<kChunk> kept[kKeptByWarp];
    keep_chunks(a.width, kept, load_x);

    float total = 0.0f, squares = 0.0f;
    each_kept_chunk<false>(a.width, kept, load_x, [&](int64_t, const Floats<kChunk>& v) { total += chunk_sum(v); });
    const float mean = warp_sum(total) / count;
    each_kept_chunk<false>(a.width, kept, load_x, [&](int64_t chunk, const Floats<kChunk>& v) {
      squares += squares_of<wide>(v, mean, chunk, a.width);
    });
    const float rstd = 1.0f / sqrtf(warp_sum(squares) / count + a.eps);
    each_kept_chunk<false>(a.width, kept, load_x, [&](int64_t chunk, const Floats<kChunk>& v) {
      normalise<wide>(v, mean, rstd, load_chunk<wide>(a.gain, chunk, a.width), load_chunk<wide>(a.bias, chunk, a.width),
                      a.y + row * a.width, chunk, a.width);
    });
    if (threadIdx.x == 0) keep_statistics(a, row, mean, rstd);
  });
}

/// A row of a block, which takes one after the other: it holds its part of gain and bias, which are larger than a row,
/// and fetches the next row while this one is in work. sums: as above.
template <typename T, bool wide, bool sums, int kMost, int kBlocks>
__global__ void __launch_bounds__(kMost, kBlocks) forward_blocks_kernel(Forward<T> a) {
  __shared__ float scratch[32];
  constexpr bool kOthers = kMost > kSomeThreads;  // chunks that are not held
  const int chunks = static_cast<int>((a.width + kChunk - 1) / kChunk);
  const float count = static_cast<float>(a.width);
  const auto chunk_of = [&](int k) { return static_cast<int>(threadIdx.x + k * blockDim.x); };
  Stored<T> next[kKeptByBlock], next_b[kKeptByBlock];  // of x, or of a and b
  const auto fetch = [&](int64_t row) {
#pragma unroll
    for (int k = 0; k < kKeptByBlock; ++k)
      if (chunk_of(k) < chunks) {
        next[k] = load_stored<wide>((sums ? a.a : a.x) + row * a.width, chunk_of(k), a.width);
        if constexpr (sums) next_b[k] = load_stored<wide>(a.b + row * a.width, chunk_of(k), a.width);
      }
  };
  if (blockIdx.x < a.rows) fetch(blockIdx.x);
  Floats<kChunk> gain[kKeptByBlock], bias[kKeptByBlock];
#pragma unroll
  for (int k = 0; k < kKeptByBlock; ++k)
    if (chunk_of(k) < chunks) {
      gain[k] = load_chunk<wide>(a.gain, chunk_of(k), a.width);
      bias[k] = load_chunk<wide>(a.bias, chunk_of(k), a.width);
    }
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    T *x = a.x + row * a.width, *y = a.y + row * a.width;
    const auto load_x = [&](int64_t chunk) { return load_chunk<wide>(x, chunk, a.width); };
    const auto first_x = [&](int64_t chunk) {
      if constexpr (sums)
        return put_sum<wide>(load_stored<wide>(a.a + row * a.width, chunk, a.width),
                             load_stored<wide>(a.b + row * a.width, chunk, a.width), x, chunk, a.width);
      else
        return load_x(chunk);
    };
    Floats<kChunk> kept[kKeptByBlock];
#pragma unroll
    for (int k = 0; k < kKeptByBlock; ++k)
      if (chunk_of(k) < chunks) {
        if constexpr (sums)
          kept[k] = put_sum<wide>(next[k], next_b[k], x, chunk_of(k), a.width);
        else
          kept[k] = to_floats(next[k]);
      }
    if (row + gridDim.x < a.rows) fetch(row + gridDim.x);

    float total = 0.0f, squares = 0.0f;
    each_kept_chunk<kOthers>(a.width, kept, first_x, [&](int64_t, const Floats<kChunk>& v) { total += chunk_sum(v); });
    const float mean = block_sum(total, scratch) / count;
    each_kept_chunk<kOthers>(a.width, kept, load_x, [&](int64_t chunk, const Floats<kChunk>& v) {
      squares += squares_of<wide>(v, mean, chunk, a.width);
    });
    const float rstd = 1.0f / sqrtf(block_sum(squares, scratch) / count + a.eps);
#pragma unroll
    for (int k = 0; k < kKeptByBlock; ++k)
      if (chunk_of(k) < chunks) normalise<wide>(kept[k], mean, rstd, gain[k], bias[k], y, chunk_of(k), a.width);
    for (int64_t chunk = chunk_of(kKeptByBlock); kOthers && chunk < chunks; chunk += blockDim.x)
      normalise<wide>(load_x(chunk), mean, rstd, load_chunk<wide>(a.gain, chunk, a.width),
                      load_chunk<wide>(a.bias, chunk, a.width), y, chunk, a.width);
    if (threadIdx.x == 0) keep_statistics(a, row, mean, rstd);
  }
}

template <typename T>
struct Backward {
  const T *dy, *x;
  const float *gain, *mean, *rstd;
  T* dx;
  int64_t rows, width;
  bool add;
};

/// g = dy gain and n = (x - mean) rstd of a chunk.
struct Terms {
  Floats<kChunk> g, n;
};

__device__ inline Terms terms_of(const Floats<kChunk>& dy, const Floats<kChunk>& x, const Floats<kChunk>& gain,
                                 float mean, float rstd) {
  Terms t;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    t.g.v[i] = dy.v[i] * gain.v[i];
    t.n.v[i] = (x.v[i] - mean) * rstd;
  }
  return t;
}

struct TermSums {
  float g = 0.0f, gn = 0.0f;
  __device__ void add(const Terms& t) {
    Floats<kChunk> product;  // 0 behind the end of the row, where g is 0
#pragma unroll
    for (int i = 0; i < kChunk; ++i) product.v[i] = t.g.v[i] * t.n.v[i];
    g += chunk_sum(t.g);
    gn += chunk_sum(product);
  }
};

template <bool wide, typename T>
__device__ inline void store_gradient(const Terms& t, float mean_g, float mean_gn, float rstd, T* dx, int64_t chunk,
                                      const Backward<T>& a) {
  Floats<kChunk> gradient;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) gradient.v[i] = (t.g.v[i] - mean_g - t.n.v[i] * mean_gn) * rstd;
  if (a.add) {
    const Floats<kChunk> old = load_chunk<wide>(dx, chunk, a.width);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) gradient.v[i] += old.v[i];
  }
  store_chunk<wide>(gradient, dx, chunk, a.width);
}

/// A row of a warp.
template <typename T, bool wide>
__global__ void __launch_bounds__(32 * kWarpRows) backward_kernel(Backward<T> a) {
  each_row(a.rows, [&](int64_t row) {
    const T *dy = a.dy + row * a.width, *x = a.x + row * a.width;
    T* dx = a.dx + row * a.width;
    const float mean = a.mean[row], rstd = a.rstd[row], count = static_cast<float>(a.width);
    const auto load_terms = [&](int64_t chunk) {
      return terms_of(load_chunk<wide>(dy, chunk, a.width), load_chunk<wide>(x, chunk, a.width),
                      load_chunk<wide>(a.gain, chunk, a.width), mean, rstd);
    };
    Terms kept[kKeptByWarp];
    keep_chunks(a.width, kept, load_terms);
    TermSums sums;
    each_kept_chunk<false>(a.width, kept, load_terms, [&](int64_t, const Terms& t) { sums.add(t); });
    const float mean_g = warp_sum(sums.g) / count, mean_gn = warp_sum(sums.gn) / count;
    each_kept_chunk<false>(a.width, kept, load_terms, [&](int64_t chunk, const Terms& t) {
      store_gradient<wide>(t, mean_g, mean_gn, rstd, dx, chunk, a);
    });
  });
}

/// A row of a block, one after the other, as forward_blocks_kernel does.
template <typename T, bool wide, int kMost, int kBlocks>
__global__ void __launch_bounds__(kMost, kBlocks) backward_blocks_kernel(Backward<T> a) {
  __shared__ float scratch[2][32];
  constexpr bool kOthers = kMost > kSomeThreads;  // chunks that are not held
  const int chunks = static_cast<int>((a.width + kChunk - 1) / kChunk);
  const float count = static_cast<float>(a.width);
  const auto chunk_of = [&](int k) { return static_cast<int>(threadIdx.x + k * blockDim.x); };
  Stored<T> next_dy[kKeptByBlock], next_x[kKeptByBlock];
  float next_mean = 0.0f, next_rstd = 0.0f;
  const auto fetch = [&](int64_t row) {
    next_mean = a.mean[row];
    next_rstd = a.rstd[row];
#pragma unroll
    for (int k = 0; k < kKeptByBlock; ++k)
      if (chunk_of(k) < chunks) {
        next_dy[k] = load_stored<wide>(a.dy + row * a.width, chunk_of(k), a.width);
        next_x[k] = load_stored<wide>(a.x + row * a.width, chunk_of(k), a.width);
      }
  };
  if (blockIdx.x < a.rows) fetch(blockIdx.x);
  Floats<kChunk> gain[kKeptByBlock];
#pragma unroll
  for (int k = 0; k < kKeptByBlock; ++k)
    if (chunk_of(k) < chunks) gain[k] = load_chunk<wide>(a.gain, chunk_of(k), a.width);
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T *dy = a.dy + row * a.width, *x = a.x + row * a.width;
    T* dx = a.dx + row * a.width;
    const float mean = next_mean, rstd = next_rstd;
    const auto load_terms = [&](int64_t chunk) {
      return terms_of(load_chunk<wide>(dy, chunk, a.width), load_chunk<wide>(x, chunk, a.width),
                      load_chunk<wide>(a.gain, chunk, a.width), mean, rstd);
    };
    Terms kept[kKeptByBlock];
#pragma unroll
    for (int k = 0; k < kKeptByBlock; ++k)
      if (chunk_of(k) < chunks) kept[k] = terms_of(to_floats(next_dy[k]), to_floats(next_x[k]), gain[k], mean, rstd);
    if (row + gridDim.x < a.rows) fetch(row + gridDim.x);
    TermSums sums;
    each_kept_chunk<kOthers>(a.width, kept, load_terms, [&](int64_t, const Terms& t) { sums.add(t); });
    const float mean_g = block_sum(sums.g, scratch[0]) / count, mean_gn = block_sum(sums.gn, scratch[1]) / count;
    each_kept_chunk<kOthers>(a.width, kept, load_terms, [&](int64_t chunk, const Terms& t) {
      store_gradient<wide>(t, mean_g, mean_gn, rstd, dx, chunk, a);
    });
  }
}

constexpr int kSumWarps = 8;

template <typename T>
struct ColumnSums {
  const T *dy, *x;
  const float *mean, *rstd;
  float *gain, *bias;                       ///< first sums of chunk 0; null = not wanted
  int64_t rows, width, chunk_rows, stride;  ///< stride: from a chunk's sums to those of the next
};

/// A block has 32 W columns of a chunk of rows: warp w its rows w, w + 8, ..., a lane W columns beside each other.
template <typename T, int W>
__global__ void __launch_bounds__(32 * kSumWarps) column_sums_kernel(ColumnSums<T> a) {
  __shared__ float sums[2][kSumWarps][32 * W];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 32 * W, column = first + lane * W;
  const int64_t begin = blockIdx.y * a.chunk_rows, left = a.rows - begin;
  const int64_t end = begin + (left < a.chunk_rows ? left : a.chunk_rows);
  Floats<W> gain{}, bias{};
  if (column < a.width) {
#pragma unroll 4
    for (int64_t row = begin + warp; row < end; row += kSumWarps) {
      const Floats<W> dy = load<W>(a.dy + row * a.width + column);
      if (a.gain) {
        const Floats<W> x = load<W>(a.x + row * a.width + column);
        const float mean = a.mean[row], rstd = a.rstd[row];
#pragma unroll
        for (int i = 0; i < W; ++i) gain.v[i] += dy.v[i] * ((x.v[i] - mean) * rstd);
      }
#pragma unroll
      for (int i = 0; i < W; ++i) bias.v[i] += dy.v[i];
    }
  }
#pragma unroll
  for (int i = 0; i < W; ++i) {
    sums[0][warp][lane * W + i] = gain.v[i];
    sums[1][warp][lane * W + i] = bias.v[i];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < 32 * W && first + i < a.width; i += 32 * kSumWarps)
    for (int which = 0; which < 2; ++which) {
      float* out = which == 0 ? a.gain : a.bias;
      if (!out) continue;
      float sum = sums[which][0][i];
      for (int w = 1; w < kSumWarps; ++w) sum += sums[which][w][i];
      out[blockIdx.y * a.stride + first + i] = sum;
    }
}

/// Block row 0 writes dgain, 1 dbias.
__global__ void combine_kernel(const float* partial, int64_t chunks, int64_t stride, int64_t width, float* dgain,
                               bool add_gain, float* dbias, bool add_bias) {
  const bool first = blockIdx.y == 0;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  float* out = first ? dgain : dbias;
  if (!out || column >= width) return;
  float sum = 0.0f;
#pragma unroll 8
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[(2 * chunk + (first ? 0 : 1)) * stride + column];
  out[column] = (first ? add_gain : add_bias) ? out[column] + sum : sum;
}

float* floats_of(const Tensor& tensor) { return tensor ? tensor.data<float>() : nullptr; }

template <typename T>
void parameter_gradients(const Context& context, const LayerNormBackward& args, float* partial) {
  const int64_t rows = args.dy.dim(0), width = args.dy.dim(1);
  const int64_t chunks = layer_norm_chunks(rows), stride = layer_norm_sum_stride(width);
  const ColumnSums<T> sums{.dy = args.dy.data<T>(),
                           .x = args.x.data<T>(),
                           .mean = args.mean.data<float>(),
                           .rstd = args.rstd.data<float>(),
                           .gain = args.dgain ? partial : nullptr,
                           .bias = args.dbias ? partial + stride : nullptr,
                           .rows = rows,
                           .width = width,
                           .chunk_rows = layer_norm_chunk_rows(rows),
                           .stride = 2 * stride};
  const auto columns = [&](int64_t per_block) { return static_cast<unsigned>(div_up(width, per_block)); };
  const unsigned groups = static_cast<unsigned>(chunks);
  if (width % kChunk == 0 && aligned(args.dy, args.x))
    launch(context, column_sums_kernel<T, kChunk>, {columns(32 * kChunk), groups}, 32 * kSumWarps, 0, sums);
  else
    launch(context, column_sums_kernel<T, 1>, {columns(32), groups}, 32 * kSumWarps, 0, sums);
  launch(context, combine_kernel, {columns(kThreads), 2}, kThreads, 0, partial, chunks, stride, width,
         floats_of(args.dgain), args.dgain_mode == GradMode::kAdd, floats_of(args.dbias),
         args.dbias_mode == GradMode::kAdd);
}

template <typename T>
void input_gradient(const Context& context, const LayerNormBackward& args) {
  const Backward<T> a{.dy = args.dy.data<T>(),
                      .x = args.x.data<T>(),
                      .gain = args.gain.data<float>(),
                      .mean = args.mean.data<float>(),
                      .rstd = args.rstd.data<float>(),
                      .dx = args.dx.data<T>(),
                      .rows = args.dy.dim(0),
                      .width = args.dy.dim(1),
                      .add = args.dx_mode == GradMode::kAdd};
  const dim3 threads = row_threads(a.width);
  const bool wide = a.width % kChunk == 0 && aligned(args.dy, args.x, args.gain, args.dx);
  with_flag(wide, [&]<typename Wide>(Wide) {
    constexpr bool kWide = Wide::value;
    const dim3 at_once = row_blocks_at_once(context, a.rows, threads, kBackwardWarps);
    if (a.width <= kWarpWidth)
      launch(context, backward_kernel<T, kWide>, row_blocks(a.rows, threads), threads, 0, a);
    else if (threads.x <= kSomeThreads)
      launch(context, backward_blocks_kernel<T, kWide, kSomeThreads, kBackwardBlocks>, at_once, threads, 0, a);
    else
      launch(context, backward_blocks_kernel<T, kWide, kMostRowThreads, 1>, at_once, threads, 0, a);
  });
}

template <typename T, bool wide, bool sums>
void forward(const Context& context, const LayerNormForward& args) {
  const Forward<T> a{.x = args.x.data<T>(),
                     .a = sums ? args.a.data<T>() : nullptr,
                     .b = sums ? args.b.data<T>() : nullptr,
                     .gain = args.gain.data<float>(),
                     .bias = args.bias.data<float>(),
                     .y = args.y.data<T>(),
                     .mean = floats_of(args.mean),
                     .rstd = floats_of(args.rstd),
                     .rows = args.x.dim(0),
                     .width = args.x.dim(1),
                     .eps = args.eps};
  const dim3 threads = row_threads(a.width);
  const dim3 at_once = row_blocks_at_once(context, a.rows, threads, sums ? kAddingWarps<T> : kForwardWarps);
  if (a.width <= kWarpWidth)
    launch(context, forward_kernel<T, wide, sums>, row_blocks(a.rows, threads), threads, 0, a);
  else if (threads.x <= kSomeThreads)
    launch(context, forward_blocks_kernel < T, wide, sums, kSomeThreads, sums ? kAddingBlocks : kForwardBlocks >,
           at_once, threads, 0, a);
  else
    launch(context, forward_blocks_kernel<T, wide, sums, kMostRowThreads, 1>, at_once, threads, 0, a);
}

}  // namespace

void layer_norm_forward(const Context& context, const LayerNormForward& args) {
  with_dtype(args.x.dtype(), [&]<typename T>(T*) {
    const bool wide = args.x.dim(1) % kChunk == 0 && aligned(args.x, args.a, args.b, args.gain, args.bias, args.y);
    with_flag(wide, [&]<typename Wide>(Wide) {
      with_flag(args.a.defined(), [&]<typename Sums>(Sums) { forward<T, Wide::value, Sums::value>(context, args); });
    });
  });
}

void layer_norm_backward(const Context& context, const LayerNormBackward& args, Tensor workspace) {
  with_dtype(args.dy.dtype(), [&]<typename T>(T*) {
    // First what reads dy, which dx may replace.
    if (args.dgain || args.dbias) parameter_gradients<T>(context, args, static_cast<float*>(workspace.raw()));
    if (args.dx) input_gradient<T>(context, args);
  });
}

}  // namespace permafrost::cuda
