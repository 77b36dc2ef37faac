#include "core/kernels/shape_ops_cpu.h"

#include <algorithm>
#include <cstring>

#include "core/base/narrow.h"
#include "core/kernels/elementwise.h"

namespace permafrost::cpu {

void add_forward(const Context& context, Tensor a, Tensor b, Tensor out) {
  const ElementLoops& loops = element_loops();
  const int64_t period = b.elements();
  for_ranges(context, a.elements(), kElementBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t in_b = i % period;
      const int64_t run = std::min(end - i, period - in_b);
      loops.add(a.dtype(), at(a, i), b.dtype(), at(b, in_b), at(out, i), run);
      i += run;
    }
  });
}

void accumulate(const Context& context, Tensor src, Tensor dst, GradMode mode) {
  const ElementLoops& loops = element_loops();
  const auto move = mode == GradMode::kAdd ? loops.accumulate : loops.convert;
  for_ranges(context, src.elements(), kElementBlock, [&](int64_t begin, int64_t end) {
    move(src.dtype(), at(src, begin), dst.dtype(), at(dst, begin), end - begin);
  });
}

void sum_leading(const Context& context, Tensor src, Tensor dst, GradMode mode) {
  constexpr int64_t kColumns = 512;  // a block of columns is summed by one thread, down the rows
  const ElementLoops& loops = element_loops();
  const int64_t width = dst.elements();
  if (width == 0) return;
  const int64_t rows = src.elements() / width;
  for_ranges(context, width, kColumns, [&](int64_t begin, int64_t end) {
    alignas(64) float sum[kColumns] = {};
    for (int64_t row = 0; row < rows; ++row)
      loops.accumulate(src.dtype(), at(src, row * width + begin), DType::kF32, sum, end - begin);
    const auto move = mode == GradMode::kAdd ? loops.accumulate : loops.convert;
    move(DType::kF32, sum, dst.dtype(), at(dst, begin), end - begin);
  });
}

void broadcast_leading(const Context& context, Tensor src, Tensor dst) {
  const ElementLoops& loops = element_loops();
  const int64_t period = src.elements();
  for_ranges(context, dst.elements(), kElementBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t in_src = i % period;
      const int64_t run = std::min(end - i, period - in_src);
      loops.convert(src.dtype(), at(src, in_src), dst.dtype(), at(dst, i), run);
      i += run;
    }
  });
}

namespace {

/// body(row, begin, end): pieces of at most kElementBlock elements of every run, short runs several to a block.
template <typename Body>
void for_runs(const Context& context, int64_t rows, int64_t run, Body body) {
  if (rows <= 0 || run <= 0) return;
  const int64_t pieces = div_up(run, kElementBlock);
  const int64_t rows_per_block = std::max<int64_t>(1, kElementBlock / run);
  context.pool->run(div_up(rows, rows_per_block) * pieces, [&](int64_t index, int) {
    const int64_t begin = index % pieces * kElementBlock, end = std::min(run, begin + kElementBlock);
    const int64_t first = index / pieces * rows_per_block, last = std::min(rows, first + rows_per_block);
    for (int64_t row = first; row < last; ++row) body(row, begin, end);
  });
}

}  // namespace

void move_runs(const Context& context, const Runs& source, const Runs& target, int64_t rows, int64_t run,
               GradMode mode) {
  const ElementLoops& loops = element_loops();
  const auto move = mode == GradMode::kAdd ? loops.accumulate : loops.convert;
  for_runs(context, rows, run, [&](int64_t row, int64_t begin, int64_t end) {
    move(source.tensor.dtype(), at(source.tensor, source.offset + row * source.stride + begin), target.tensor.dtype(),
         at(target.tensor, target.offset + row * target.stride + begin), end - begin);
  });
}

void zero_runs(const Context& context, const Runs& target, int64_t rows, int64_t run) {
  const int64_t size = size_of(target.tensor.dtype());
  for_runs(context, rows, run, [&](int64_t row, int64_t begin, int64_t end) {
    std::memset(at(target.tensor, target.offset + row * target.stride + begin), 0,
                static_cast<size_t>((end - begin) * size));
  });
}

}  // namespace permafrost::cpu
