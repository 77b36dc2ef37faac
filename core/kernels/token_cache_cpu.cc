#include "core/kernels/token_cache_cpu.h"

#include <cstring>

#include "core/device/thread_pool.h"

namespace permafrost::cpu {

namespace {

/// Row `row` of a (R, S, C) tensor from token `token` on.
std::byte* token_of(const Tensor& tensor, int64_t row, int64_t token) {
  return static_cast<std::byte*>(tensor.raw()) +
         (row * tensor.dim(1) + token) * tensor.dim(2) * size_of(tensor.dtype());
}

void check_range(const char* what, const Tensor& numbers, int64_t largest) {
  const int32_t* number = numbers.data<int32_t>();
  for (int64_t r = 0; r < numbers.elements(); ++r)
    if (number[r] < 0 || number[r] > largest)
      fail(ErrorKind::kInvalidArgument, what, " must lie in 0..", largest, "; got ", number[r], " at row ", r);
}

}  // namespace

void write_tokens(const Context& context, Tensor x, Tensor positions, Tensor cache) {
  check_range("write_tokens: positions", positions, cache.dim(1) - x.dim(1));
  if (x.elements() == 0) return;
  const int64_t copies = cache.dim(0) / x.dim(0), bytes = x.bytes() / x.dim(0);
  context.pool->run(cache.dim(0), [&](int64_t row, int) {
    const int64_t source = row / copies;
    std::memcpy(token_of(cache, row, positions.data<int32_t>()[source]), token_of(x, source, 0),
                static_cast<size_t>(bytes));
  });
}

void select_rows(const Context& context, Tensor rows, Tensor lengths, Tensor cache, Tensor workspace) {
  check_range("select_rows: rows", rows, cache.dim(0) - 1);
  check_range("select_rows: lengths", lengths, cache.dim(1));
  const Tensor copy(workspace.raw(), cache.spec());
  const int32_t* from = rows.data<int32_t>();
  const auto move = [&](const Tensor& source, const Tensor& target, bool selected) {
    context.pool->run(cache.dim(0), [&](int64_t row, int) {
      if (from[row] == row) return;
      const int64_t bytes = lengths.data<int32_t>()[row] * cache.dim(2) * size_of(cache.dtype());
      std::memcpy(token_of(target, row, 0), token_of(source, selected ? from[row] : row, 0),
                  static_cast<size_t>(bytes));
    });
  };
  move(cache, copy, true);
  move(copy, cache, false);
}

}  // namespace permafrost::cpu
