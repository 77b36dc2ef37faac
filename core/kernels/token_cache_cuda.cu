#include "core/kernels/token_cache_cuda.h"

#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

template <typename T>
struct Write {
  const T* x;
  const int32_t* positions;
  T* cache;
  int64_t copies, run;  ///< rows of the cache per text; elements of a text's new tokens
  int64_t stride, width, largest;
  Refuser refuser;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / run, source = row / copies;
    const int32_t position = positions[source];
    if (position < 0 || position > largest) return refuse(refuser, source, position);
    store(load<W>(x + source * run + (i - row * run)), cache + row * stride + position * width + (i - row * run));
  }
};

/// to[r] = from[selected ? rows[r] : r], as many tokens as row r has; nothing for rows that stay.
template <typename T>
struct Select {
  const int32_t *rows, *lengths;
  const T* from;
  T* to;
  int64_t count, tokens, width;
  bool selected;
  Refuser row_refuser, length_refuser;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / (tokens * width), inside = i - row * tokens * width;
    const int32_t source = rows[row], length = lengths[row];
    if (source < 0 || source >= count) return refuse(row_refuser, row, source);
    if (length < 0 || length > tokens) return refuse(length_refuser, row, length);
    if (source == row || inside >= length * width) return;
    store(load<W>(from + (selected ? source : row) * tokens * width + inside), to + i);
  }
};

}  // namespace

void write_tokens(const Context& context, Tensor x, Tensor positions, Tensor cache) {
  if (x.elements() == 0) return;
  const int64_t width = x.dim(2), run = x.dim(1) * width, rows = cache.dim(0);
  with_dtype(x.dtype(), [&]<typename T>(T*) {
    for_each(
        context, rows * run, aligned(x, cache) && width % kWide == 0,
        Write<T>{x.data<T>(), positions.data<int32_t>(), cache.data<T>(), rows / x.dim(0), run, cache.dim(1) * width,
                 width, cache.dim(1) - x.dim(1), refuser(context, Refusal::kPosition, cache.dim(1) - x.dim(1))});
  });
}

void select_rows(const Context& context, Tensor rows, Tensor lengths, Tensor cache, Tensor workspace) {
  const int64_t width = cache.dim(2);
  with_dtype(cache.dtype(), [&]<typename T>(T*) {
    T *data = cache.data<T>(), *copy = static_cast<T*>(workspace.raw());
    const bool wide = aligned(cache, workspace) && width % kWide == 0;
    const auto move = [&](const T* from, T* to, bool selected) {
      for_each(context, cache.elements(), wide,
               Select<T>{rows.data<int32_t>(), lengths.data<int32_t>(), from, to, cache.dim(0), cache.dim(1), width,
                         selected, refuser(context, Refusal::kRow, cache.dim(0) - 1),
                         refuser(context, Refusal::kRowLength, cache.dim(1))});
    };
    move(data, copy, true);
    move(copy, data, false);
  });
}

}  // namespace permafrost::cuda
