#include "core/kernels/linear_cuda.h"

#include "core/kernels/activation_cuda.h"
#include "core/kernels/elements_cuda.h"
#include "core/kernels/product_choices.h"

// Column by column, as cuBLASLt sees it, a row-major matrix is its own transpose. So what is computed is
//   forward:          y^T  (N, M) = W x^T,     W in memory (K, N): transposed; x^T in memory as it is
//   gradient of x:    dx^T (K, M) = W^T dy^T,  both as they are
//   gradient of W:    dW^T (K, N) = x^T dy,    x^T as it is; dy in memory (N, M): transposed
// and rows of the result are features of the output.
namespace permafrost::cuda {

namespace {

/// The parts of a workspace, in memory.
struct Places {
  std::byte *product, *vector, *weight;
  Places(const Tensor& workspace, const LinearParts& parts) {
    const auto address = reinterpret_cast<uintptr_t>(workspace.raw());
    constexpr auto kStep = static_cast<uintptr_t>(kMatmulAlignment);
    product = reinterpret_cast<std::byte*>((address + kStep - 1) / kStep * kStep);
    vector = product + parts.product;
    weight = vector + parts.vector;
  }
};

template <typename From, typename To>
struct Convert {
  const From* from;
  To* to;
  template <int W>
  __device__ void operator()(int64_t i) const {
    store(load<W>(from + i), to + i);
  }
};

/// Columns [0, width) of a matrix whose rows are `ld` apart, to f32, without gaps.
template <typename From>
struct ConvertColumns {
  const From* from;
  int64_t ld, width;
  float* to;
  template <int W>
  __device__ void operator()(int64_t i) const {
    store(load<W>(from + i / width * ld + i % width), to + i);
  }
};

/// One row over and over.
template <typename From, typename To>
struct RepeatRow {
  const From* row;
  int64_t width;
  To* to;
  template <int W>
  __device__ void operator()(int64_t i) const {
#pragma unroll
    for (int j = 0; j < W; ++j) to[i + j] = from_float<To>(to_float(row[(i + j) % width]));
  }
};

constexpr int kSumWarps = 8, kWarpRows = static_cast<int>(LinearParts::kChunkRows) / kSumWarps;

/// Sums of columns over chunks of 256 rows: 32 rows by each warp, first to last, then the warps in order. Block (x, y):
/// 32 W columns, chunks y, y + gridDim.y ... sums[chunk * n + column], or added to what is there.
template <int W, typename T>
__global__ void __launch_bounds__(kSumWarps * 32)
    chunk_sums_kernel(const T* dy, int64_t m, int64_t n, float* sums, bool add) {
  constexpr int kColumns = 32 * W;
  __shared__ float parts[kSumWarps][kColumns];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kColumns, mine = first + lane * W;
  for (int64_t chunk = blockIdx.y; chunk * LinearParts::kChunkRows < m; chunk += gridDim.y) {
    Floats<W> sum{};
    if (mine < n) {
      const int64_t begin = chunk * LinearParts::kChunkRows + warp * kWarpRows;
      const int64_t end = begin + kWarpRows < m ? begin + kWarpRows : m;
#pragma unroll 8
      for (int64_t row = begin; row < end; ++row) {
        const Floats<W> values = load<W>(dy + row * n + mine);
#pragma unroll
        for (int j = 0; j < W; ++j) sum.v[j] += values.v[j];
      }
    }
#pragma unroll
    for (int j = 0; j < W; ++j) parts[warp][lane * W + j] = sum.v[j];
    __syncthreads();
    const int column = static_cast<int>(threadIdx.x);
    if (column < kColumns && first + column < n) {
      float total = 0;
#pragma unroll
      for (int part = 0; part < kSumWarps; ++part) total += parts[part][column];
      float* to = sums + chunk * n + first + column;
      *to = add ? *to + total : total;
    }
    __syncthreads();
  }
}

/// dbias from the sums of its chunks, in order.
struct AddChunks {
  const float* sums;
  int64_t chunks, n;
  float* dbias;
  bool add;
  template <int W>
  __device__ void operator()(int64_t i) const {
    Floats<W> total{};
#pragma unroll 4
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const Floats<W> sum = load<W>(sums + chunk * n + i);
#pragma unroll
      for (int j = 0; j < W; ++j) total.v[j] += sum.v[j];
    }
    if (add) {
      const Floats<W> old = load<W>(dbias + i);
#pragma unroll
      for (int j = 0; j < W; ++j) total.v[j] += old.v[j];
    }
    store(total, dbias + i);
  }
};

void clear(const Context& context, const Tensor& tensor) { fill(queue_of(context), tensor.raw(), 0, tensor.bytes()); }

/// The weights of features [begin, begin + count) in f32: rows of W (forward) or columns of it.
void convert_weight(const Context& context, const Tensor& weight, bool forward, int64_t begin, int64_t count,
                    float* to) {
  with_dtype(weight.dtype(), [&]<typename T>(T*) {
    const int64_t n = weight.dim(0), k = weight.dim(1), width = forward ? k : count;
    const T* from = weight.data<T>() + (forward ? begin * k : begin);
    const bool gapless = width == k;
    const bool wide =
        reinterpret_cast<uintptr_t>(from) % 16 == 0 && (gapless || (k % kWide == 0 && width % kWide == 0));
    const int64_t elements = forward ? count * k : n * count;
    if (gapless)
      for_each(context, elements, wide, Convert<T, float>{from, to});
    else
      for_each(context, elements, wide, ConvertColumns<T>{from, k, width, to});
  });
}

/// Runs `product`, whose A is the weight, feature block after feature block where it must be converted.
void multiply_by_weight(const Context& context, MatrixProduct product, const Tensor& weight, const LinearParts& parts,
                        const Places& places) {
  const bool forward = product.pass == LinearPass::kForward;
  product.a = {weight.raw(), weight.dim(1), forward};
  if (parts.weight == 0) return multiply(context, product, places.product);
  const int64_t features = product.rows, bytes = size_of(product.output);
  auto* d = static_cast<std::byte*>(product.d);
  const auto* bias = static_cast<const std::byte*>(product.bias);
  auto* converted = reinterpret_cast<float*>(places.weight);
  for (int64_t begin = 0; begin < features; begin += parts.block_features) {
    product.rows = std::min(parts.block_features, features - begin);
    convert_weight(context, weight, forward, begin, product.rows, converted);
    product.a = {converted, forward ? product.terms : product.rows, forward};
    product.d = d + begin * bytes;
    if (bias) product.bias = bias + begin * bytes;
    multiply(context, product, places.product);
  }
}

/// The bias as cuBLASLt takes it: of the output's dtype, at a multiple of 16 bytes.
const void* usable_bias(const Context& context, const Tensor& bias, DType output, std::byte* place) {
  if (!bias) return nullptr;
  if (bias.dtype() == output && aligned(bias)) return bias.raw();
  with_dtype(output, [&]<typename To>(To*) {
    with_dtype(bias.dtype(), [&]<typename From>(From*) {
      for_each(context, bias.elements(), aligned(bias),
               Convert<From, To>{bias.data<From>(), reinterpret_cast<To*>(place)});
    });
  });
  return place;
}

/// Every sum is its bias: there is nothing to add up.
void bias_alone(const Context& context, const Tensor& bias, const Tensor& to) {
  if (!bias) return clear(context, to);
  with_dtype(to.dtype(), [&]<typename To>(To*) {
    with_dtype(bias.dtype(), [&]<typename From>(From*) {
      for_each(context, to.elements(), false, RepeatRow<From, To>{bias.data<From>(), bias.dim(0), to.data<To>()});
    });
  });
}

void bias_gradient(const Context& context, const Tensor& dy, const Tensor& dbias, GradMode mode, std::byte* place) {
  const int64_t m = dy.dim(0), n = dy.dim(1), chunks = div_up(m, LinearParts::kChunkRows);
  const bool add = mode == GradMode::kAdd, one = chunks == 1;
  float* sums = one ? dbias.data<float>() : reinterpret_cast<float*>(place);
  const auto rows_of_blocks = static_cast<unsigned>(std::min<int64_t>(chunks, 65535));
  with_dtype(dy.dtype(), [&]<typename T>(T*) {
    const auto sum = [&](auto kernel, int64_t columns) {
      launch(context, kernel, dim3(static_cast<unsigned>(div_up(n, columns)), rows_of_blocks), kSumWarps * 32, 0,
             dy.data<T>(), m, n, sums, add && one);
    };
    if (aligned(dy) && n % kWide == 0)
      sum(chunk_sums_kernel<kWide, T>, 32 * kWide);
    else
      sum(chunk_sums_kernel<1, T>, 32);
  });
  if (!one) for_each(context, n, false, AddChunks{sums, chunks, n, dbias.data<float>(), add});
}

}  // namespace

void linear_forward(const Context& context, const LinearForward& args, Tensor workspace) {
  const int64_t m = args.x.dim(0), k = args.x.dim(1), n = args.weight.dim(0);
  if (m == 0 || n == 0) return;
  const Tensor sum = args.pre ? args.pre : args.y;
  if (k == 0) {
    bias_alone(context, args.bias, sum);
  } else {
    const LinearParts parts(LinearPass::kForward, m, n, k, args.x.dtype(), args.weight.dtype());
    const Places places(workspace, parts);
    multiply_by_weight(context,
                       {.pass = LinearPass::kForward,
                        .rows = n,
                        .columns = m,
                        .terms = k,
                        .inputs = args.x.dtype(),
                        .a = {},
                        .b = {args.x.raw(), k, false},
                        .output = sum.dtype(),
                        .d = sum.raw(),
                        .ldd = n,
                        .bias = usable_bias(context, args.bias, sum.dtype(), places.vector)},
                       args.weight, parts, places);
  }
  // Never the library's relu, which is said to be max(x, 0) and may lose a NaN.
  if (args.pre || args.activation != Activation::kNone) cuda::activation_forward(context, args.activation, sum, args.y);
}

void linear_backward_input(const Context& context, const LinearBackwardInput& args, Tensor workspace) {
  const int64_t m = args.dy.dim(0), n = args.dy.dim(1), k = args.weight.dim(1);
  const bool add = args.mode == GradMode::kAdd;
  if (m == 0 || k == 0) return;
  if (n == 0) {
    if (!add) clear(context, args.dx);
    return;
  }
  const LinearParts parts(LinearPass::kBackwardInput, m, n, k, args.dy.dtype(), args.weight.dtype());
  multiply_by_weight(context,
                     {.pass = LinearPass::kBackwardInput,
                      .rows = k,
                      .columns = m,
                      .terms = n,
                      .inputs = args.dy.dtype(),
                      .a = {},
                      .b = {args.dy.raw(), n, false},
                      .output = args.dx.dtype(),
                      .d = args.dx.raw(),
                      .ldd = k,
                      .add = add},
                     args.weight, parts, Places(workspace, parts));
}

void linear_backward_weight(const Context& context, const LinearBackwardWeight& args, Tensor workspace) {
  const int64_t m = args.dy.dim(0), n = args.dy.dim(1), k = args.dweight ? args.x.dim(1) : 0;
  if (n == 0) return;
  if (m == 0) {
    if (args.dweight && args.dweight_mode == GradMode::kOverwrite) clear(context, args.dweight);
    if (args.dbias && args.dbias_mode == GradMode::kOverwrite) clear(context, args.dbias);
    return;
  }
  const LinearParts parts(LinearPass::kBackwardWeight, m, n, k, args.dy.dtype(), DType::kF32);
  const Places places(workspace, parts);
  if (k > 0)
    multiply(context,
             {.pass = LinearPass::kBackwardWeight,
              .rows = k,
              .columns = n,
              .terms = m,
              .inputs = args.dy.dtype(),
              .a = {args.x.raw(), k, false},
              .b = {args.dy.raw(), n, true},
              .output = DType::kF32,
              .d = args.dweight.raw(),
              .ldd = k,
              .add = args.dweight_mode == GradMode::kAdd},
             places.product);
  if (args.dbias) bias_gradient(context, args.dy, args.dbias, args.dbias_mode, places.vector);
}

void tune_linear(const Context& context, const LinearForward& args, Tensor workspace) {
  const ProductTuning tuning(context);
  cuda::linear_forward(context, args, workspace);
}

void tune_linear(const Context& context, const LinearBackwardInput& args, Tensor workspace) {
  const ProductTuning tuning(context);
  cuda::linear_backward_input(context, args, workspace);
}

void tune_linear(const Context& context, const LinearBackwardWeight& args, Tensor workspace) {
  const ProductTuning tuning(context);
  cuda::linear_backward_weight(context, args, workspace);
}

}  // namespace permafrost::cuda
