#include "core/kernels/order_free_cuda.h"

#include <cmath>

#include "core/kernels/elements_cuda.h"
#include "core/kernels/flat_pieces.h"

namespace permafrost::cuda {

namespace {

__device__ inline int magnitude(float x) { return __float_as_int(x) & 0x7fffffff; }
__device__ inline int larger(int a, int b) { return a > b ? a : b; }

/// W numbers of any type, in one access where W > 1.
template <typename T, int W>
struct alignas(W > 1 ? W * sizeof(T) : alignof(T)) Group {
  T v[W];
};

/// element.operator()<W>(i) for elements [i, i + W), W = Element::kWidth or 1, that cover [0, n). It returns the bits
/// of their largest magnitude; the largest of all is combined into *range. Integers: any order gives the same.
template <typename Element>
__global__ void range_kernel(Element element, int64_t n, bool wide, int* range) {
  __shared__ int of_warp[kThreads / 32];
  constexpr int W = Element::kWidth;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t groups = wide ? n / W : 0;
  int largest = 0;
  for (int64_t group = first; group < groups; group += threads)
    largest = larger(largest, element.template operator()<W>(group * W));
  for (int64_t i = groups * W + first; i < n; i += threads)
    largest = larger(largest, element.template operator()<1>(i));
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    largest = larger(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned warp = 1; warp < kThreads / 32; ++warp) largest = larger(largest, of_warp[warp]);
  if (largest > 0) atomicMax(range, largest);
}

/// Enough to fill any device.
unsigned blocks_for(const Context& context, int64_t work) {
  const int64_t blocks = (work + kThreads - 1) / kThreads;
  const int64_t most = static_cast<int64_t>(queue_of(context).processors) * 16;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

template <typename Element>
void for_each_with_range(const Context& context, int64_t n, bool wide, const Element& element, const Tensor& range) {
  const int64_t work = wide ? n / Element::kWidth + n % Element::kWidth : n;
  launch(context, range_kernel<Element>, blocks_for(context, work), kThreads, 0, element, n, wide,
         range.data<int32_t>());
}

/// 2^shift, exact.
__device__ inline double power_of_two(int shift) {
  return __longlong_as_double(static_cast<long long>(shift + 1023) << 52);
}

/// Bits of the f32 2^exponent, infinity where that is too large: the first magnitude that is not allowed.
__device__ inline int limit_bits(int exponent) {
  if (exponent >= 128) return 0x7f800000;
  return (exponent + 127) << 23;  // OrderFreeScale keeps exponents above those of subnormals
}

/// Two at once: a warp's sums then lie in 512 bytes without a gap.
struct OrderFreeAdd {
  static constexpr int kWidth = 2;
  const float* gradient;
  long long* sums;
  const int* scale;
  bool add;
  template <int W>
  __device__ int operator()(int64_t i) const {
    const int limit = limit_bits(__ldg(scale));
    const double factor = power_of_two(__ldg(scale + 1));
    const auto x = *reinterpret_cast<const Group<float, W>*>(gradient + i);
    auto* to = reinterpret_cast<Group<long long, W>*>(sums + i);
    Group<long long, W> sum{};
    if (add) sum = *to;
    int largest = 0;
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const int bits = magnitude(x.v[j]);
      largest = larger(largest, bits);
      const long long value = bits < limit ? __double2ll_rn(static_cast<double>(x.v[j]) * factor) : 0;
      sum.v[j] =
          static_cast<long long>(static_cast<unsigned long long>(sum.v[j]) + static_cast<unsigned long long>(value));
    }
    *to = sum;
    return largest;
  }
};

struct Range {
  static constexpr int kWidth = 4;
  const float* gradient;
  template <int W>
  __device__ int operator()(int64_t i) const {
    const Floats<W> x = load<W>(gradient + i);
    int largest = 0;
#pragma unroll
    for (int j = 0; j < W; ++j) largest = larger(largest, magnitude(x.v[j]));
    return largest;
  }
};

struct PlainAdd {
  static constexpr int kWidth = 4;
  const float* gradient;
  float* sums;
  bool add;
  template <int W>
  __device__ int operator()(int64_t i) const {
    Floats<W> x = load<W>(gradient + i);
    int largest = 0;
#pragma unroll
    for (int j = 0; j < W; ++j) largest = larger(largest, magnitude(x.v[j]));
    if (add) {
      const Floats<W> old = load<W>(sums + i);
#pragma unroll
      for (int j = 0; j < W; ++j) x.v[j] = old.v[j] + x.v[j];
    }
    store(x, sums + i);
    return largest;
  }
};

/// A thread asks for some groups of W sums before it writes any.
template <int W>
__global__ void __launch_bounds__(kThreads)
    value_kernel(const long long* sums, float* gradient, double factor, int64_t groups) {
  constexpr int kAtOnce = 4;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; first < groups;
       first += kAtOnce * threads) {
    Group<long long, W> sum[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k)
      if (first + k * threads < groups)
        sum[k] = reinterpret_cast<const Group<long long, W>*>(sums)[first + k * threads];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (first + k * threads >= groups) continue;
      Group<float, W> value;
#pragma unroll
      for (int j = 0; j < W; ++j) value.v[j] = static_cast<float>(static_cast<double>(sum[k].v[j]) * factor);
      reinterpret_cast<Group<float, W>*>(gradient)[first + k * threads] = value;
    }
  }
}

/// A block per piece.
__global__ void values_kernel(const FlatPiece* pieces, const int* scales, const long long* sums, float* slice) {
  const FlatPiece piece = pieces[blockIdx.x];
  const double factor = power_of_two(-scales[2 * piece.row + 1]);
  for (int64_t i = threadIdx.x; i < piece.elements; i += blockDim.x)
    slice[piece.begin + i] = static_cast<float>(static_cast<double>(sums[piece.begin + i]) * factor);
}

/// One block: all threads fetch, the first one adds in the order that is the contract.
__global__ void norm_kernel(const double* sums, int64_t n, double clip_norm, double* norm, float* clip, int* apply) {
  constexpr int kAhead = 1024;
  __shared__ double fetched[kAhead];
  double sum = 0.0;
  for (int64_t begin = 0; begin < n; begin += kAhead) {
    const int64_t count = n - begin < kAhead ? n - begin : kAhead;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) fetched[i] = sums[begin + i];
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll 8
      for (int64_t i = 0; i < count; ++i) sum += fetched[i];
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  const double root = sqrt(sum), scale = clip_norm / (root + 1e-6);
  *norm = root;
  *clip = clip_norm > 0.0 && scale < 1.0 ? static_cast<float>(scale) : 1.0f;
  *apply = root - root == 0.0 ? 1 : 0;  // neither infinite nor NaN
}

/// Eight lanes sum a block of values, each one of the eight sums that order_free.h describes, which leaves it no other
/// order. Together they read 32 bytes at a time, all of what the memory hands over; what keeps it busy is that a lane
/// asks for many before it adds them.
__global__ void square_sums_kernel(const float* values, int64_t n, double* sums, int64_t blocks) {
  constexpr int kAhead = 16;
  const int64_t block = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 8;
  const int64_t begin = block * kSquareSumBlock;
  const int64_t end = begin + kSquareSumBlock < n ? begin + kSquareSumBlock : n;
  double sum = 0.0;
  int64_t i = begin + threadIdx.x % 8;
  for (; i + 8 * (kAhead - 1) < end; i += 8 * kAhead) {
    float x[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) x[j] = values[i + 8 * j];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) sum += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  }
  for (; i < end; i += 8) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
#pragma unroll
  for (int offset = 4; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 8 == 0 && block < blocks) sums[block] = sum;
}

/// The type of the device's own conversions.
long long* integers(const Tensor& tensor) {
  static_assert(sizeof(long long) == sizeof(int64_t));
  return reinterpret_cast<long long*>(tensor.data<int64_t>());
}

}  // namespace

void order_free_add(const Context& context, Tensor scale, Tensor gradient, Tensor sums, GradMode mode, Tensor range) {
  const OrderFreeAdd each{gradient.data<float>(), integers(sums), scale.data<int32_t>(), mode == GradMode::kAdd};
  for_each_with_range(context, gradient.elements(), aligned(gradient, sums), each, range);
}

void gradient_range(const Context& context, Tensor gradient, Tensor range) {
  for_each_with_range(context, gradient.elements(), aligned(gradient), Range{gradient.data<float>()}, range);
}

void order_free_value(const Context& context, OrderFreeScale scale, Tensor sums, Tensor gradient) {
  const int64_t n = sums.elements();
  const double factor = std::ldexp(1.0, -scale.shift);
  if (n % 2 == 0 && aligned(sums, gradient))
    launch(context, value_kernel<2>, blocks_for(context, n / 2), kThreads, 0, integers(sums), gradient.data<float>(),
           factor, n / 2);
  else
    launch(context, value_kernel<1>, blocks_for(context, n), kThreads, 0, integers(sums), gradient.data<float>(),
           factor, n);
}

void order_free_values(const Context& context, Tensor pieces, Tensor scales, Tensor sums, Tensor slice) {
  launch(context, values_kernel, static_cast<unsigned>(pieces.dim(0)), kThreads, 0,
         reinterpret_cast<const FlatPiece*>(pieces.data<int64_t>()), scales.data<int32_t>(), integers(sums),
         slice.data<float>());
}

void plain_add(const Context& context, Tensor gradient, Tensor sums, GradMode mode, Tensor range) {
  const PlainAdd each{gradient.data<float>(), sums.data<float>(), mode == GradMode::kAdd};
  for_each_with_range(context, gradient.elements(), aligned(gradient, sums), each, range);
}

void block_square_sums(const Context& context, Tensor values, Tensor sums) {
  constexpr int64_t kPerBlock =
      8;  // small blocks: a parameter has few of 4096 values, and every processor shall have one
  const int64_t blocks = sums.elements();
  launch(context, square_sums_kernel, static_cast<unsigned>((blocks + kPerBlock - 1) / kPerBlock), 8 * kPerBlock, 0,
         values.data<float>(), values.elements(), sums.data<double>(), blocks);
}

void norm_of_blocks(const Context& context, Tensor sums, double clip_norm, Tensor norm, Tensor clip, Tensor apply) {
  launch(context, norm_kernel, 1, kThreads, 0, sums.data<double>(), sums.elements(), clip_norm, norm.data<double>(),
         clip.data<float>(), apply.data<int32_t>());
}

}  // namespace permafrost::cuda
