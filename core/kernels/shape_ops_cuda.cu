#include "core/kernels/shape_ops_cuda.h"

#include "core/kernels/elements_cuda.h"

namespace permafrost::cuda {

namespace {

/// Where element i of something repeated every `period` elements lies.
__device__ inline int64_t repeated(int64_t i, int64_t period) { return i < period ? i : i % period; }

template <typename A, typename B>
struct Add {
  const A* a;
  const B* b;
  A* out;
  int64_t period;
  template <int W>
  __device__ void operator()(int64_t i) const {
    Floats<W> sum = load<W>(a + i);
    const Floats<W> other = load<W>(b + repeated(i, period));
#pragma unroll
    for (int j = 0; j < W; ++j) sum.v[j] += other.v[j];
    store(sum, out + i);
  }
};

/// dst = or += src, where run after run of src goes to runs of dst.
template <typename From, typename To>
struct Move {
  const From* from;
  To* to;
  int64_t run, from_stride, to_stride;
  bool add;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const int64_t row = i < run ? 0 : i / run, column = i - row * run;
    Floats<W> values = load<W>(from + row * from_stride + column);
    To* target = to + row * to_stride + column;
    store_or_add(values, target, add);
  }
};

template <typename T>
struct Zero {
  T* to;
  int64_t run, stride;
  template <int W>
  __device__ void operator()(int64_t i) const {
    const int64_t row = i < run ? 0 : i / run;
    store(Floats<W>{}, to + row * stride + (i - row * run));
  }
};

/// Columns [i, i + W) down all rows: in order, so no two threads share a sum.
template <typename From, typename To>
struct SumRows {
  const From* from;
  To* to;
  int64_t rows, width;
  bool add;
  template <int W>
  __device__ void operator()(int64_t i) const {
    Floats<W> sum{};
    for (int64_t row = 0; row < rows; ++row) {
      const Floats<W> values = load<W>(from + row * width + i);
#pragma unroll
      for (int j = 0; j < W; ++j) sum.v[j] += values.v[j];
    }
    store_or_add(sum, to + i, add);
  }
};

template <typename From, typename To>
struct Repeat {
  const From* from;
  To* to;
  int64_t period;
  template <int W>
  __device__ void operator()(int64_t i) const {
    store(load<W>(from + repeated(i, period)), to + i);
  }
};

bool wide(int64_t a) { return a % kWide == 0; }

void move(const Context& context, const Runs& source, const Runs& target, int64_t rows, int64_t run, bool add) {
  const bool fits = aligned(source.tensor, target.tensor) && wide(run) && wide(source.offset) && wide(target.offset) &&
                    wide(source.stride) && wide(target.stride);
  with_dtype(source.tensor.dtype(), [&]<typename From>(From*) {
    with_dtype(target.tensor.dtype(), [&]<typename To>(To*) {
      for_each(context, rows * run, fits,
               Move<From, To>{source.tensor.data<From>() + source.offset, target.tensor.data<To>() + target.offset, run,
                              source.stride, target.stride, add});
    });
  });
}

}  // namespace

void add_forward(const Context& context, Tensor a, Tensor b, Tensor out) {
  const int64_t n = a.elements(), period = b.elements();
  with_dtype(a.dtype(), [&]<typename A>(A*) {
    with_dtype(b.dtype(), [&]<typename B>(B*) {
      for_each(context, n, aligned(a, b, out) && (wide(period) || period == n),
               Add<A, B>{a.data<A>(), b.data<B>(), out.data<A>(), period});
    });
  });
}

void accumulate(const Context& context, Tensor src, Tensor dst, GradMode mode) {
  const int64_t n = src.elements();
  if (mode == GradMode::kOverwrite && src.raw() == dst.raw() && src.dtype() == dst.dtype()) return;
  with_dtype(src.dtype(), [&]<typename From>(From*) {
    with_dtype(dst.dtype(), [&]<typename To>(To*) {
      for_each(context, n, aligned(src, dst),
               Move<From, To>{src.data<From>(), dst.data<To>(), n, 0, 0, mode == GradMode::kAdd});
    });
  });
}

void sum_leading(const Context& context, Tensor src, Tensor dst, GradMode mode) {
  const int64_t width = dst.elements();
  if (width == 0) return;
  const int64_t rows = src.elements() / width;
  with_dtype(src.dtype(), [&]<typename From>(From*) {
    with_dtype(dst.dtype(), [&]<typename To>(To*) {
      for_each(context, width, aligned(src, dst) && (wide(width) || rows <= 1),
               SumRows<From, To>{src.data<From>(), dst.data<To>(), rows, width, mode == GradMode::kAdd});
    });
  });
}

void broadcast_leading(const Context& context, Tensor src, Tensor dst) {
  const int64_t n = dst.elements(), period = src.elements();
  with_dtype(src.dtype(), [&]<typename From>(From*) {
    with_dtype(dst.dtype(), [&]<typename To>(To*) {
      for_each(context, n, aligned(src, dst) && (wide(period) || period == n),
               Repeat<From, To>{src.data<From>(), dst.data<To>(), period});
    });
  });
}

void move_runs(const Context& context, const Runs& source, const Runs& target, int64_t rows, int64_t run,
               GradMode mode) {
  if (rows > 0 && run > 0) move(context, source, target, rows, run, mode == GradMode::kAdd);
}

void zero_runs(const Context& context, const Runs& target, int64_t rows, int64_t run) {
  if (rows <= 0 || run <= 0) return;
  with_dtype(target.tensor.dtype(), [&]<typename T>(T*) {
    for_each(context, rows * run, aligned(target.tensor) && wide(run) && wide(target.offset) && wide(target.stride),
             Zero<T>{target.tensor.data<T>() + target.offset, run, target.stride});
  });
}

}  // namespace permafrost::cuda
