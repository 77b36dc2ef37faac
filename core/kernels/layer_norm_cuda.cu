#include "core/kernels/layer_norm_cuda.h"

#include "core/kernels/layer_norm_chunks.h"
#include "core/kernels/rows_cuda.h"

namespace permafrost::cuda {

namespace {

// Chunks of a row that a thread keeps between passes: all of a row of a warp, and up to 8192 numbers of one of a block.
constexpr int kKeptByWarp = 4, kKeptByBlock = 2;
static_assert(kKeptByWarp * kChunk * 32 >= kWarpWidth);

template <typename T>
struct Forward {
  const T* x;
  const float *gain, *bias;
  T* y;
  float *mean, *rstd;
  int64_t rows, width;
  float eps;
};

template <typename T, bool wide, int K>
__global__ void __launch_bounds__(kMostRowThreads) forward_kernel(Forward<T> a) {
  __shared__ float scratch[32];
  each_row(a.rows, [&](int64_t row) {
    const T* x = a.x + row * a.width;
    const float count = static_cast<float>(a.width);
    const auto load_x = [&](int64_t chunk) { return load_chunk<wide>(x, chunk, a.width); };
    Floats<kChunk> kept[K];
    keep_chunks(a.width, kept, load_x);

    float total = 0.0f, squares = 0.0f;
    each_kept_chunk(a.width, kept, load_x, [&](int64_t, const Floats<kChunk>& v) { total += chunk_sum(v); });
    const float mean = row_sum(total, scratch) / count;
    each_kept_chunk(a.width, kept, load_x, [&](int64_t chunk, Floats<kChunk> v) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const float d = v.v[i] - mean;
        v.v[i] = in_row<wide>(chunk, i, a.width) ? d * d : 0.0f;
      }
      squares += chunk_sum(v);
    });
    const float rstd = 1.0f / sqrtf(row_sum(squares, scratch) / count + a.eps);
    each_kept_chunk(a.width, kept, load_x, [&](int64_t chunk, Floats<kChunk> v) {
      const Floats<kChunk> gain = load_chunk<wide>(a.gain, chunk, a.width);
      const Floats<kChunk> bias = load_chunk<wide>(a.bias, chunk, a.width);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) v.v[i] = fmaf((v.v[i] - mean) * rstd, gain.v[i], bias.v[i]);
      store_chunk<wide>(v, a.y + row * a.width, chunk, a.width);
    });
    if (threadIdx.x == 0) {
      if (a.mean) a.mean[row] = mean;
      if (a.rstd) a.rstd[row] = rstd;
    }
  });
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

template <typename T, bool wide, int K>
__global__ void __launch_bounds__(kMostRowThreads) backward_kernel(Backward<T> a) {
  __shared__ float scratch[2][32];
  each_row(a.rows, [&](int64_t row) {
    const T *dy = a.dy + row * a.width, *x = a.x + row * a.width;
    T* dx = a.dx + row * a.width;
    const float mean = a.mean[row], rstd = a.rstd[row], count = static_cast<float>(a.width);
    const auto load_terms = [&](int64_t chunk) {
      Terms t{load_chunk<wide>(dy, chunk, a.width), load_chunk<wide>(x, chunk, a.width)};
      const Floats<kChunk> gain = load_chunk<wide>(a.gain, chunk, a.width);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        t.g.v[i] *= gain.v[i];
        t.n.v[i] = (t.n.v[i] - mean) * rstd;
      }
      return t;
    };
    Terms kept[K];
    keep_chunks(a.width, kept, load_terms);

    float sum_g = 0.0f, sum_gn = 0.0f;
    each_kept_chunk(a.width, kept, load_terms, [&](int64_t, const Terms& t) {
      Floats<kChunk> product;  // 0 behind the end of the row, where g is 0
#pragma unroll
      for (int i = 0; i < kChunk; ++i) product.v[i] = t.g.v[i] * t.n.v[i];
      sum_g += chunk_sum(t.g);
      sum_gn += chunk_sum(product);
    });
    const float mean_g = row_sum(sum_g, scratch[0]) / count, mean_gn = row_sum(sum_gn, scratch[1]) / count;
    each_kept_chunk(a.width, kept, load_terms, [&](int64_t chunk, const Terms& t) {
      Floats<kChunk> gradient;
#pragma unroll
      for (int i = 0; i < kChunk; ++i) gradient.v[i] = (t.g.v[i] - mean_g - t.n.v[i] * mean_gn) * rstd;
      if (a.add) {
        const Floats<kChunk> old = load_chunk<wide>(dx, chunk, a.width);
#pragma unroll
        for (int i = 0; i < kChunk; ++i) gradient.v[i] += old.v[i];
      }
      store_chunk<wide>(gradient, dx, chunk, a.width);
    });
  });
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
  const dim3 threads = row_threads(a.width), blocks = row_blocks(a.rows, threads);
  const bool wide = a.width % kChunk == 0 && aligned(args.dy, args.x, args.gain, args.dx);
  with_flag(wide, [&]<typename Wide>(Wide) {
    if (a.width <= kWarpWidth)
      launch(context, backward_kernel<T, Wide::value, kKeptByWarp>, blocks, threads, 0, a);
    else
      launch(context, backward_kernel<T, Wide::value, kKeptByBlock>, blocks, threads, 0, a);
  });
}

}  // namespace

void layer_norm_forward(const Context& context, const LayerNormForward& args) {
  with_dtype(args.x.dtype(), [&]<typename T>(T*) {
    const Forward<T> a{.x = args.x.data<T>(),
                       .gain = args.gain.data<float>(),
                       .bias = args.bias.data<float>(),
                       .y = args.y.data<T>(),
                       .mean = floats_of(args.mean),
                       .rstd = floats_of(args.rstd),
                       .rows = args.x.dim(0),
                       .width = args.x.dim(1),
                       .eps = args.eps};
    const dim3 threads = row_threads(a.width), blocks = row_blocks(a.rows, threads);
    const bool wide = a.width % kChunk == 0 && aligned(args.x, args.gain, args.bias, args.y);
    with_flag(wide, [&]<typename Wide>(Wide) {
      if (a.width <= kWarpWidth)
        launch(context, forward_kernel<T, Wide::value, kKeptByWarp>, blocks, threads, 0, a);
      else
        launch(context, forward_kernel<T, Wide::value, kKeptByBlock>, blocks, threads, 0, a);
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
