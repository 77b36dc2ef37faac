#include "core/kernels/embedding_cuda.h"

#include "core/kernels/rows_cuda.h"

namespace permafrost::cuda {

namespace {

template <typename From, typename To>
struct LookUp {
  const int32_t* ids;
  const From* table;
  To* out;
  int64_t rows, width, vocabulary;
  Refuser refuser;
};

template <typename From, typename To, bool wide>
__global__ void __launch_bounds__(kMostRowThreads) look_up_kernel(LookUp<From, To> a) {
  constexpr int kAtOnce = 2;
  const int64_t chunks = (a.width + kChunk - 1) / kChunk, step = blockDim.x;
  each_row(a.rows, [&](int64_t row) {
    const int32_t id = a.ids[row];
    To* out = a.out + row * a.width;
    if (id < 0 || id >= a.vocabulary) {
      if (threadIdx.x == 0) refuse(a.refuser, row, id);
      each_chunk(a.width, [&](int64_t chunk) { store_chunk<wide>(Floats<kChunk>{}, out, chunk, a.width); });
      return;
    }
    const From* from = a.table + id * a.width;
    for (int64_t first = threadIdx.x; first < chunks; first += kAtOnce * step) {
      Stored<From> stored[kAtOnce];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        if (first + k * step < chunks) stored[k] = load_stored<wide>(from, first + k * step, a.width);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        if (first + k * step < chunks) store_chunk<wide>(to_floats(stored[k]), out, first + k * step, a.width);
    }
  });
}

/// A block belongs to one row of dout. Of rows with one id the first adds them all, in order: no two blocks write to
/// one row of the table.
template <typename T>
__global__ void scatter_kernel(const int32_t* ids, const T* dout, float* dtable, int64_t rows, int64_t width,
                               int64_t vocabulary, Refuser refuser) {
  __shared__ int earlier;
  const int64_t row = blockIdx.x;
  const int32_t id = ids[row];
  if (id < 0 || id >= vocabulary) {
    if (threadIdx.x == 0) refuse(refuser, row, id);
    return;
  }
  if (threadIdx.x == 0) earlier = 0;
  __syncthreads();
  for (int64_t r = threadIdx.x; r < row; r += blockDim.x)
    if (ids[r] == id) earlier = 1;
  __syncthreads();
  if (earlier != 0) return;
  for (int64_t column = threadIdx.x; column < width; column += blockDim.x) {
    float sum = dtable[id * width + column];
    for (int64_t r = row; r < rows; ++r)
      if (ids[r] == id) sum += to_float(dout[r * width + column]);
    dtable[id * width + column] = sum;
  }
}

}  // namespace

void embedding_forward(const Context& context, Tensor ids, Tensor table, Tensor out) {
  const int64_t width = table.dim(1);
  with_dtype(table.dtype(), [&]<typename From>(From*) {
    with_dtype(out.dtype(), [&]<typename To>(To*) {
      const LookUp<From, To> a{.ids = ids.data<int32_t>(),
                               .table = table.data<From>(),
                               .out = out.data<To>(),
                               .rows = width > 0 ? ids.elements() : 0,
                               .width = width,
                               .vocabulary = table.dim(0),
                               .refuser = refuser(context, Refusal::kEmbeddingId, table.dim(0) - 1)};
      const dim3 threads = row_threads(width);
      with_flag(width % kChunk == 0 && aligned(table, out), [&]<typename Aligned>(Aligned) {
        launch(context, look_up_kernel<From, To, Aligned::value>, row_blocks(a.rows, threads), threads, 0, a);
      });
    });
  });
}

void embedding_backward(const Context& context, Tensor ids, Tensor dout, Tensor dtable, GradMode mode) {
  if (mode == GradMode::kOverwrite) fill(queue_of(context), dtable.raw(), 0, dtable.bytes());
  const int64_t rows = ids.elements(), width = dtable.dim(1);
  with_dtype(dout.dtype(), [&]<typename T>(T*) {
    launch(context, scatter_kernel<T>, static_cast<unsigned>(rows), kThreads, 0, ids.data<int32_t>(), dout.data<T>(),
           dtable.data<float>(), rows, width, dtable.dim(0),
           refuser(context, Refusal::kEmbeddingId, dtable.dim(0) - 1));
  });
}

}  // namespace permafrost::cuda
