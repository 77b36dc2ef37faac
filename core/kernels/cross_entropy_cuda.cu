#include "core/kernels/cross_entropy_cuda.h"

#include <cmath>

#include "core/kernels/rows_cuda.h"

namespace permafrost::cuda {

namespace {

/// What is known of some numbers of a row: their maximum, the sum of exp(x - max), and the sum of x, which f64 holds
/// without loss worth counting and without overflow.
struct Statistics {
  float max, exp_sum;
  double sum;
};

/// What numbers are taken relative to: their maximum, unless all are -inf, which no number is relative to.
__device__ inline float shift_of(float max) { return max == -INFINITY ? 0.0f : max; }

/// As exact as numbers of type T show: the fast one errs by 2 + 1.2 |x| units of 2^-24.
template <typename T>
__device__ inline float exponential(float x) {
  if constexpr (sizeof(T) == 2)
    return fast_exp2(x * 1.44269504089f);
  else
    return expf(x);
}

/// The same bits whichever comes first.
__device__ inline Statistics combined(const Statistics& a, const Statistics& b) {
  const float max = fmaxf(a.max, b.max), shift = shift_of(max);
  return {max, a.exp_sum * expf(a.max - shift) + b.exp_sum * expf(b.max - shift), a.sum + b.sum};
}

__device__ inline Statistics warp_combined(Statistics mine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Statistics theirs{__shfl_xor_sync(0xffffffffu, mine.max, offset),
                            __shfl_xor_sync(0xffffffffu, mine.exp_sum, offset),
                            __shfl_xor_sync(0xffffffffu, mine.sum, offset)};
    mine = combined(mine, theirs);
  }
  return mine;
}

/// Of all threads of a row, the same for all of them.
__device__ inline Statistics row_combined(Statistics mine, Statistics* scratch) {
  mine = warp_combined(mine);
  if (blockDim.x == 32) return mine;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (lane == 0) scratch[warp] = mine;
  __syncthreads();
  mine = warp_combined(lane < warps ? scratch[lane] : Statistics{-INFINITY, 0.0f, 0.0});
  __syncthreads();
  return mine;
}

/// Sum of the numbers of a chunk. Of short ones in f32, a few roundings of which are nothing beside those of the
/// numbers themselves, after a division that keeps it finite: conversions to f64 are slow. Behind the end of the row:
/// 0.
template <typename T, bool wide>
__device__ inline double own_sum(Floats<kChunk> x, int64_t chunk, int64_t width) {
  if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x.v[i] = in_row<wide>(chunk, i, width) ? x.v[i] * (1.0f / kChunk) : 0.0f;
    return kChunk * static_cast<double>(chunk_sum(x));
  } else {
    double sum = 0.0;
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      if (in_row<wide>(chunk, i, width)) sum += static_cast<double>(x.v[i]);
    return sum;
  }
}

/// Chunks that a thread asks for before it works on them: what keeps memory busy. In forward, half as many where they
/// are twice as long, since the next are on their way while it works.
constexpr int kAtOnce = 4;
template <typename T>
constexpr int kFetched = sizeof(T) == 2 ? kAtOnce : kAtOnce / 2;

/// Of this thread's part of a row, in one pass. NaN is not in max, but in both sums.
template <bool wide, typename T>
__device__ inline Statistics own_statistics(const T* row, int64_t width, bool with_sum) {
  Statistics s{-INFINITY, 0.0f, 0.0};
  const int64_t chunks = (width + kChunk - 1) / kChunk, step = blockDim.x;
  Stored<T> next[kFetched<T>];
  const auto fetch = [&](int64_t first) {
#pragma unroll
    for (int k = 0; k < kFetched<T>; ++k)
      if (first + k * step < chunks) next[k] = load_stored<wide>(row, first + k * step, width);
  };
  fetch(threadIdx.x);
  for (int64_t first = threadIdx.x; first < chunks; first += kFetched<T> * step) {
    Stored<T> stored[kFetched<T>];
#pragma unroll
    for (int k = 0; k < kFetched<T>; ++k) stored[k] = next[k];
    fetch(first + kFetched<T> * step);
    const auto each = [&](auto body) {
#pragma unroll
      for (int k = 0; k < kFetched<T>; ++k) {
        const int64_t chunk = first + k * step;
        if (chunk >= chunks) continue;
        Floats<kChunk> x = to_floats(stored[k]);
#pragma unroll
        for (int i = 0; i < kChunk; ++i)
          if (!in_row<wide>(chunk, i, width)) x.v[i] = -INFINITY;
        body(chunk, x);
      }
    };
    float max = s.max;
    each([&](int64_t, const Floats<kChunk>& x) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i) max = fmaxf(max, x.v[i]);
    });
    const float shift = shift_of(max);
    if (max > s.max) s.exp_sum *= exponential<T>(s.max - shift);
    each([&](int64_t chunk, Floats<kChunk> x) {
      if (with_sum) s.sum += own_sum<T, wide>(x, chunk, width);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) x.v[i] = exponential<T>(x.v[i] - shift);
      s.exp_sum += chunk_sum(x);
    });
    s.max = max;
  }
  return s;
}

/// True for a label that is to be predicted; notes one that must not be.
__device__ inline bool counts(const Refuser& refuser, int64_t row, int32_t label, int64_t vocabulary) {
  if (label == kIgnoredLabel) return false;
  if (label >= 0 && label < vocabulary) return true;
  if (threadIdx.x == 0) refuse(refuser, row, label);
  return false;
}

template <typename T>
struct Forward {
  const T* logits;
  const int32_t* labels;
  float *row_loss, *lse;
  Refuser refuser;
  int64_t rows, vocabulary;
  float smoothing;
};

template <typename T, bool wide>
__global__ void __launch_bounds__(kMostRowThreads, 2) forward_kernel(Forward<T> a) {
  __shared__ Statistics scratch[32];
  each_row(a.rows, [&](int64_t row) {
    const int32_t label = a.labels[row];
    float loss = 0.0f, lse = 0.0f;
    if (counts(a.refuser, row, label, a.vocabulary)) {
      const T* logits = a.logits + row * a.vocabulary;
      const bool smooth = a.smoothing > 0.0f;
      const Statistics s = row_combined(own_statistics<wide>(logits, a.vocabulary, smooth), scratch);
      // Everything relative to the maximum: lse and the label's logit themselves may be large and nearly equal.
      const float log_sum = logf(s.exp_sum);
      loss = log_sum - (1.0f - a.smoothing) * (to_float(logits[label]) - s.max);
      if (smooth) {
        const double count = static_cast<double>(a.vocabulary);
        loss -= a.smoothing * static_cast<float>(s.sum / count - static_cast<double>(s.max));
      }
      lse = s.max + log_sum;
    }
    if (threadIdx.x == 0) {
      a.row_loss[row] = loss;
      if (a.lse) a.lse[row] = lse;
    }
  });
}

template <typename From, typename To>
struct Backward {
  const From* logits;
  const int32_t* labels;
  const float *lse, *row_weight;
  To* dlogits;
  Refuser refuser;
  int64_t rows, vocabulary;
  float smoothing;
};

/// Rows in parts, so that many blocks of equal work can go where there is room: of at most kAtOnce chunks for each
/// thread.
struct Parts {
  int64_t of_row, chunks;  // parts of a row, chunks of one
};
inline Parts parts_of(int64_t vocabulary, dim3 threads) {
  const int64_t chunks = (vocabulary + kChunk - 1) / kChunk, most = static_cast<int64_t>(threads.x) * kAtOnce;
  const int64_t parts = chunks > most ? (chunks + most - 1) / most : 1;
  return {parts, (chunks + parts - 1) / parts};
}

/// A thread writes what it alone has read, so that dlogits may be the logits.
template <typename From, typename To, bool wide>
__global__ void __launch_bounds__(kThreads) backward_kernel(Backward<From, To> a, Parts parts) {
  const float others = a.smoothing / static_cast<float>(a.vocabulary), chosen = others + (1.0f - a.smoothing);
  const int64_t step = blockDim.x, chunks = (a.vocabulary + kChunk - 1) / kChunk;
  each_row(a.rows * parts.of_row, [&](int64_t part) {
    const int64_t row = part / parts.of_row, begin = (part - row * parts.of_row) * parts.chunks;
    const int64_t end = begin + parts.chunks < chunks ? begin + parts.chunks : chunks, first = begin + threadIdx.x;
    const int32_t label = a.labels[row];
    const From* logits = a.logits + row * a.vocabulary;
    To* dlogits = a.dlogits + row * a.vocabulary;
    if (!counts(a.refuser, row, label, a.vocabulary)) {
      for (int64_t chunk = first; chunk < end; chunk += step)
        store_chunk<wide>(Floats<kChunk>{}, dlogits, chunk, a.vocabulary);
      return;
    }
    Stored<From> stored[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (first + k * step < end) stored[k] = load_stored<wide>(logits, first + k * step, a.vocabulary);
    const float lse = a.lse[row], weight = a.row_weight[row];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64_t chunk = first + k * step, place = label - chunk * kChunk;
      if (chunk >= end) continue;
      Floats<kChunk> x = to_floats(stored[k]);
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        x.v[i] = weight * (exponential<To>(x.v[i] - lse) - (i == place ? chosen : others));
      store_chunk<wide>(x, dlogits, chunk, a.vocabulary);
    }
  });
}

constexpr int kTile = 1024;

/// One block. Its first thread adds what the others have multiplied, while they go on.
__global__ void weighted_sum_kernel(const float* row_loss, const float* row_weight, int64_t rows, double* loss) {
  __shared__ double products[2][kTile];
  const auto fill = [&](int64_t tile, unsigned first, unsigned step) {
    for (unsigned i = first; i < kTile; i += step) {
      const int64_t row = tile * kTile + i;
      if (row < rows) products[tile % 2][i] = static_cast<double>(row_weight[row]) * static_cast<double>(row_loss[row]);
    }
  };
  fill(0, threadIdx.x, blockDim.x);
  __syncthreads();
  double sum = 0.0;
  for (int64_t tile = 0; tile * kTile < rows; ++tile) {
    if (threadIdx.x == 0) {
      const int64_t left = rows - tile * kTile;
      const int count = left < kTile ? static_cast<int>(left) : kTile;
#pragma unroll 8
      for (int i = 0; i < count; ++i) sum += products[tile % 2][i];
    }
    if (threadIdx.x >= 32) fill(tile + 1, threadIdx.x - 32, blockDim.x - 32);
    __syncthreads();
  }
  if (threadIdx.x == 0) *loss = sum;
}

}  // namespace

void cross_entropy_forward(const Context& context, Tensor logits, Tensor labels, float smoothing, Tensor row_loss,
                           Tensor lse) {
  with_dtype(logits.dtype(), [&]<typename T>(T*) {
    const Forward<T> a{.logits = logits.data<T>(),
                       .labels = labels.data<int32_t>(),
                       .row_loss = row_loss.data<float>(),
                       .lse = lse ? lse.data<float>() : nullptr,
                       .refuser = refuser(context, Refusal::kLabel, logits.dim(1) - 1),
                       .rows = logits.dim(0),
                       .vocabulary = logits.dim(1),
                       .smoothing = smoothing};
    const dim3 threads = row_threads(a.vocabulary);
    with_flag(a.vocabulary % kChunk == 0 && aligned(logits), [&]<typename Wide>(Wide) {
      launch(context, forward_kernel<T, Wide::value>, row_blocks(a.rows, threads), threads, 0, a);
    });
  });
}

void cross_entropy_backward(const Context& context, Tensor logits, Tensor labels, Tensor lse, Tensor row_weight,
                            float smoothing, Tensor dlogits) {
  with_dtype(logits.dtype(), [&]<typename From>(From*) {
    with_dtype(dlogits.dtype(), [&]<typename To>(To*) {
      const Backward<From, To> a{.logits = logits.data<From>(),
                                 .labels = labels.data<int32_t>(),
                                 .lse = lse.data<float>(),
                                 .row_weight = row_weight.data<float>(),
                                 .dlogits = dlogits.data<To>(),
                                 .refuser = refuser(context, Refusal::kLabel, logits.dim(1) - 1),
                                 .rows = logits.dim(0),
                                 .vocabulary = logits.dim(1),
                                 .smoothing = smoothing};
      const dim3 of_row = row_threads(a.vocabulary), threads = of_row.y > 1 ? of_row : dim3(kThreads);
      const Parts parts = parts_of(a.vocabulary, threads);
      with_flag(a.vocabulary % kChunk == 0 && aligned(logits, dlogits), [&]<typename Wide>(Wide) {
        launch(context, backward_kernel<From, To, Wide::value>, row_blocks(a.rows * parts.of_row, threads), threads, 0,
               a, parts);
      });
    });
  });
}

void weighted_sum(const Context& context, Tensor row_loss, Tensor row_weight, Tensor loss) {
  launch(context, weighted_sum_kernel, 1, kThreads, 0, row_loss.data<float>(), row_weight.data<float>(),
         row_loss.elements(), loss.data<double>());
}

}  // namespace permafrost::cuda
