#include "core/kernels/plain_matmul_cuda.h"

#include <algorithm>

#include "core/base/narrow.h"
#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

// A block computes a tile of D, 64 x 64, a thread 4 x 4 of it that are 16 apart, so that neighbours read neighbours.
constexpr int kTile = 64, kDepth = 16, kSide = 16, kEach = kTile / kSide, kPlainThreads = kSide * kSide;

/// One of the two factors: element (i, r), i being its row or column of D, r the term.
template <typename T>
struct Factor {
  const T* data;
  int64_t ld, extent;
  bool terms_beside;  ///< whether terms of a sum lie beside each other in memory

  __device__ float at(int64_t i, int64_t r, int64_t terms) const {
    if (i >= extent || r >= terms) return 0.0f;
    return to_float(terms_beside ? data[r + i * ld] : data[i + r * ld]);
  }
};

/// Elements [first, first + 64) of terms [begin, begin + 16), in f32; zeros where there is nothing. Threads beside each
/// other read what lies beside each other.
template <typename T>
__device__ inline void stage(const Factor<T>& factor, int64_t first, int64_t begin, int64_t terms,
                             float (&to)[kDepth][kTile + 1]) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int part = 0; part < kTile * kDepth / kPlainThreads; ++part) {
    const int n = thread + part * kPlainThreads;
    const int i = factor.terms_beside ? n / kDepth : n % kTile, r = factor.terms_beside ? n % kDepth : n / kTile;
    to[r][i] = factor.at(first + i, begin + r, terms);
  }
}

template <typename In, typename Out>
__global__ void __launch_bounds__(kPlainThreads)
    plain_product_kernel(Factor<In> a, Factor<In> b, int64_t terms, Out* d, int64_t ldd, const Out* bias, bool add) {
  __shared__ float as[kDepth][kTile + 1], bs[kDepth][kTile + 1];
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile;
  for (int64_t column = static_cast<int64_t>(blockIdx.y) * kTile; column < b.extent;
       column += static_cast<int64_t>(gridDim.y) * kTile) {
    float sums[kEach][kEach] = {};
    for (int64_t begin = 0; begin < terms; begin += kDepth) {
      stage(a, row, begin, terms, as);
      stage(b, column, begin, terms, bs);
      __syncthreads();
      for (int r = 0; r < kDepth && begin + r < terms; ++r)
#pragma unroll
        for (int j = 0; j < kEach; ++j)
#pragma unroll
          for (int i = 0; i < kEach; ++i) sums[j][i] = fmaf(as[r][x + i * kSide], bs[r][y + j * kSide], sums[j][i]);
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < kEach; ++j)
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int64_t at_row = row + x + i * kSide, at_column = column + y + j * kSide;
        if (at_row >= a.extent || at_column >= b.extent) continue;
        Out* to = d + at_row + at_column * ldd;
        float value = sums[j][i];
        if (add) value += to_float(*to);
        if (bias) value += to_float(bias[at_row]);
        *to = from_float<Out>(value);
      }
  }
}

}  // namespace

void plain_multiply(const Context& context, const MatrixProduct& p) {
  constexpr int64_t kMostBlocks = 65535;
  const dim3 grid(narrow<unsigned>(div_up(p.rows, int64_t{kTile})),
                  static_cast<unsigned>(std::min(kMostBlocks, div_up(p.columns, int64_t{kTile}))));
  with_dtype(p.inputs, [&]<typename In>(In*) {
    with_dtype(p.output, [&]<typename Out>(Out*) {
      const Factor<In> a{static_cast<const In*>(p.a.data), p.a.ld, p.rows, p.a.transposed};
      const Factor<In> b{static_cast<const In*>(p.b.data), p.b.ld, p.columns, !p.b.transposed};
      launch(context, plain_product_kernel<In, Out>, grid, kPlainThreads, 0, a, b, p.terms, static_cast<Out*>(p.d),
             p.ldd, static_cast<const Out*>(p.bias), p.add);
    });
  });
}

}  // namespace permafrost::cuda
