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
    return __expf(x);
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

/// Of this thread's part of a row, in one pass. NaN is not in max, but in both sums.
template <bool wide, typename T>
__device__ inline Statistics own_statistics(const T* row, int64_t width, bool with_sum) {
  Statistics s{-INFINITY, 0.0f, 0.0};
  each_chunk(width, [&](int64_t chunk) {
    Floats<kChunk> x = load_chunk<wide>(row, chunk, width, -INFINITY);
    float max = s.max;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) max = fmaxf(max, x.v[i]);
    if (with_sum) {
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        if (in_row<wide>(chunk, i, width)) s.sum += static_cast<double>(x.v[i]);
    }
    const float shift = shift_of(max);
    if (max > s.max) s.exp_sum *= exponential<T>(s.max - shift);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) x.v[i] = exponential<T>(x.v[i] - shift);
    s.exp_sum += chunk_sum(x);
    s.max = max;
  });
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
__global__ void __launch_bounds__(kMostRowThreads) forward_kernel(Forward<T> a) {
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

/// A thread writes what it alone has read, so that dlogits may be the logits.
template <typename From, typename To, bool wide>
__global__ void __launch_bounds__(kMostRowThreads) backward_kernel(Backward<From, To> a) {
  const float others = a.smoothing / static_cast<float>(a.vocabulary), chosen = others + (1.0f - a.smoothing);
  each_row(a.rows, [&](int64_t row) {
    const int32_t label = a.labels[row];
    const From* logits = a.logits + row * a.vocabulary;
    To* dlogits = a.dlogits + row * a.vocabulary;
    if (!counts(a.refuser, row, label, a.vocabulary)) {
      each_chunk(a.vocabulary,
                 [&](int64_t chunk) { store_chunk<wide>(Floats<kChunk>{}, dlogits, chunk, a.vocabulary); });
      return;
    }
    const float lse = a.lse[row], weight = a.row_weight[row];
    each_chunk(a.vocabulary, [&](int64_t chunk) {
      Floats<kChunk> x = load_chunk<wide>(logits, chunk, a.vocabulary);
      const int64_t place = label - chunk * kChunk;
#pragma unroll
      for (int i = 0; i < kChunk; ++i)
        x.v[i] = weight * (exponential<To>(x.v[i] - lse) - (i == place ? chosen : others));
      store_chunk<wide>(x, dlogits, chunk, a.vocabulary);
    });
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
      const dim3 threads = row_threads(a.vocabulary);
      with_flag(a.vocabulary % kChunk == 0 && aligned(logits, dlogits), [&]<typename Wide>(Wide) {
        launch(context, backward_kernel<From, To, Wide::value>, row_blocks(a.rows, threads), threads, 0, a);
      });
    });
  });
}

void weighted_sum(const Context& context, Tensor row_loss, Tensor row_weight, Tensor loss) {
  launch(context, weighted_sum_kernel, 1, kThreads, 0, row_loss.data<float>(), row_weight.data<float>(),
         row_loss.elements(), loss.data<double>());
}

}  // namespace permafrost::cuda
