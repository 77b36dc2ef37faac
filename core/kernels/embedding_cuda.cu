#include "core/kernels/embedding_cuda.h"

#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

template <typename From, typename To>
struct LookUp {
  const int32_t* ids;
  const From* table;
  To* out;
  int64_t width, vocabulary;
  Refuser refuser;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / width;
    const int32_t id = ids[row];
    if (id < 0 || id >= vocabulary) {
      refuse(refuser, row, id);
      store(Floats<W>{}, out + i);
    } else {
      store(load<W>(table + id * width + (i - row * width)), out + i);
    }
  }
};

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
      for_each(context, out.elements(), aligned(table, out) && width % kWide == 0,
               LookUp<From, To>{ids.data<int32_t>(), table.data<From>(), out.data<To>(), width, table.dim(0),
                                refuser(context, Refusal::kEmbeddingId, table.dim(0) - 1)});
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
