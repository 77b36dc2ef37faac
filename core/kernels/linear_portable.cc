#include <algorithm>
#include <bit>

#include "core/base/narrow.h"
#include "core/kernels/activation_cpu.h"
#include "core/kernels/linear_product.h"

// Products in plain C++, for processors without AVX-512. Packed panels are of f32, term by term: A 4 wide, B 16 wide.
namespace permafrost {

namespace {
constexpr int64_t kRows = 4, kColumns = 16, kBlock = 64;

float value_at(const ProductOperand& m, int64_t outer, int64_t r) {
  const int64_t at = m.r_contiguous ? outer * m.ld + r : r * m.ld + outer;
  if (m.dtype == DType::kF32) return static_cast<const float*>(m.data)[at];
  if (m.dtype == DType::kBF16) return static_cast<float>(static_cast<const bfloat16*>(m.data)[at]);
  return static_cast<float>(static_cast<const float16*>(m.data)[at]);
}

bool must_pack_a(const Product&) { return true; }
bool packs_meanwhile(const Product&, bool) { return false; }
bool reads_b_in_place(const Product&) { return false; }

void pack(const ProductOperand& m, int64_t begin, int64_t end, int64_t width, int64_t r0, int64_t r1, float* out) {
  for (int64_t r = r0; r < r1; ++r)
    for (int64_t t = 0; t < width; ++t) *out++ = begin + t < end ? value_at(m, begin + t, r) : 0.0f;
}

void pack_a(const Product& p, int64_t panel, int64_t count, void* packed) {
  auto* out = static_cast<float*>(packed);
  for (; count > 0; --count, ++panel, out += p.r * kRows) pack(p.a, panel * kRows, p.i, kRows, 0, p.r, out);
}

void pack_b(const Product& p, int64_t j0, int64_t columns, int64_t r0, int64_t r1, void* packed) {
  auto* out = static_cast<float*>(packed);
  for (int64_t j = j0; j < j0 + columns; j += kColumns, out += (r1 - r0) * kColumns)
    pack(p.b, j, j0 + columns, kColumns, r0, r1, out);
}

void multiply(const Product& p, const ProductBlock& block) {
  const int64_t terms = block.r1 - block.r0;
  for (int64_t i = 0; i < block.rows; i += kRows)
    for (int64_t j = 0; j < block.columns; j += kColumns) {
      const float* a = static_cast<const float*>(block.packed_a) + i * p.r + block.r0 * kRows;
      const float* b = static_cast<const float*>(block.packed_b) + j * terms;
      float sums[kRows][kColumns] = {};
      float* c = block.c + i * block.ldc + j;
      if (!block.first)
        for (int64_t s = 0; s < kRows; ++s) std::copy_n(c + s * block.ldc, kColumns, sums[s]);
      for (int64_t r = 0; r < terms; ++r, a += kRows, b += kColumns)
        for (int64_t s = 0; s < kRows; ++s)
          for (int64_t t = 0; t < kColumns; ++t) sums[s][t] += a[s] * b[t];
      for (int64_t s = 0; s < kRows; ++s) std::copy_n(sums[s], kColumns, c + s * block.ldc);
    }
}

template <typename T>
void finish(const ProductOutput& out, float* values, int64_t row, int64_t column, int64_t columns) {
  const int64_t at = row * out.ld + column;
  for (int64_t j = 0; j < columns; ++j) {
    if (out.bias) values[j] += out.bias[column + j];
    if (out.pre) static_cast<T*>(out.pre)[at + j] = T(values[j]);
  }
  activation_forward_cpu(out.activation, DType::kF32, values, values, columns, SimdLevel::kPortable);
  T* y = static_cast<T*>(out.y) + at;
  for (int64_t j = 0; j < columns; ++j) y[j] = T(out.add ? static_cast<float>(y[j]) + values[j] : values[j]);
}

void store(const Product& p, const ProductBlock& block, float* scratch) {
  const bool turn = p.out.transposed;
  const int64_t rows = turn ? block.columns : block.rows, columns = turn ? block.rows : block.columns;
  for (int64_t i = 0; i < rows; ++i) {
    float* values = turn ? scratch : block.c + i * block.ldc;
    if (turn)
      for (int64_t j = 0; j < columns; ++j) values[j] = block.c[j * block.ldc + i];
    const int64_t row = (turn ? block.j0 : block.i0) + i, column = turn ? block.i0 : block.j0;
    if (p.out.dtype == DType::kF32)
      finish<float>(p.out, values, row, column, columns);
    else
      finish<bfloat16>(p.out, values, row, column, columns);
  }
}

void nothing() {}
}  // namespace

const ProductEngine& portable_engine() {
  static constexpr ProductEngine kEngine = {.panel_i = kRows,
                                            .panel_j = kColumns,
                                            .r_step = 1,
                                            .row_step = kRows,
                                            .block_i = kBlock,
                                            .block_j = kBlock,
                                            .group_j = kBlock,
                                            .narrow_j = 128,
                                            .element_bytes = 4,
                                            .ahead_terms = 0,
                                            .stores_meanwhile = false,
                                            .b_bytes = 512 * 1024,
                                            .copies_a = false,
                                            .must_pack_a = must_pack_a,
                                            .packs_meanwhile = packs_meanwhile,
                                            .reads_b_in_place = reads_b_in_place,
                                            .pack_a = pack_a,
                                            .pack_b = pack_b,
                                            .multiply = multiply,
                                            .store = store,
                                            .begin = nothing,
                                            .end = nothing};
  return kEngine;
}

void column_sums_portable(const ColumnSums& s) {
  constexpr int64_t kChunk = 256;
  const ProductOperand dy{s.dy, s.dtype, true, s.ld};
  for (int64_t j = s.j0; j < s.j0 + s.columns; ++j) {
    float total = 0;
    for (int64_t row = 0; row < s.rows; row += kChunk) {
      float sum = 0;
      for (int64_t i = row; i < std::min(s.rows, row + kChunk); ++i) sum += value_at(dy, i, j);
      total += sum;
    }
    s.sums[j] = s.add ? s.sums[j] + total : total;
  }
}

}  // namespace permafrost
