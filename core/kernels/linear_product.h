#pragma once
#include <cstddef>
#include <cstdint>

#include "core/kernels/kernel_types.h"
#include "core/tensor/dtype.h"

// What the three passes of a linear layer have in common: C[i, j] = sum over r of A[i, r] B[j, r], in f32, r ascending.
// Structs and declarations alone, so that sources compiled for AVX-512 and AMX may include it. [Note: linear]
namespace permafrost {

/// A matrix in memory: element (outer, r) is data[outer * ld + r], or data[r * ld + outer] when r is not contiguous.
struct ProductOperand {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  bool r_contiguous = true;
  int64_t ld = 0;
};

/// Where C goes. Rows of y are the i of the product, or its j when transposed.
struct ProductOutput {
  void* y = nullptr;
  void* pre = nullptr;          ///< the sum with its bias before the activation; null = not kept
  const float* bias = nullptr;  ///< one per column of y; null = none
  DType dtype = DType::kF32;    ///< of y and pre
  Activation activation = Activation::kNone;
  bool add = false;
  bool transposed = false;
  int64_t ld = 0;
};

struct Product {
  int64_t i = 0, j = 0, r = 0;
  ProductOperand a, b;
  ProductOutput out;
};

/// Memory that will be read soon: for every step of terms, `rows` rows of `lines` cache lines, asked for while a block
/// is multiplied. rows = 0: nothing.
struct ProductAhead {
  const std::byte* data = nullptr;
  int64_t row_bytes = 0, step_bytes = 0;
  int64_t rows = 0, lines = 1;
};

/// One block of C: rows [i0, i0 + rows), columns [j0, j0 + columns), terms [r0, r1).
struct ProductBlock {
  int64_t i0 = 0, rows = 0, j0 = 0, columns = 0, r0 = 0, r1 = 0;
  const void* packed_a = nullptr;  ///< packed panels from that of row i0 on, all of R; null = read A where it is
  void* packed_b = nullptr;        ///< panels from that of column j0 on, terms [r0, r1); null = read B where it is
  bool pack_b = false;             ///< packed_b is still to be filled, meanwhile
  // Where the engine copies A panel by panel (ProductEngine::copies_a): the copy of this block's rows, terms [r0, r1);
  // null where no other block needs them. Whether it is still to be filled; how many rows behind the block are to take
  // its place.
  void* copy_a = nullptr;
  bool pack_a = false;
  int64_t next_rows = 0;
  float* c = nullptr;  ///< block of C, `ldc` floats per row
  int64_t ldc = 0;
  bool first = true;                       ///< start from zero; else from what c holds
  bool last = true;                        ///< c is finished by this call
  const ProductBlock* finished = nullptr;  ///< a block before this one, to be stored meanwhile; null = none
  ProductAhead ahead;
};

/// One way to compute products.
struct ProductEngine {
  int64_t panel_i, panel_j;  ///< widths A and B are packed in
  int64_t r_step;            ///< packed panels are padded with zeros to a multiple of this many terms
  int64_t row_step;          ///< A is read in place in multiples of this many rows; the rest is packed
  int64_t block_i, block_j;  ///< the largest block `multiply` takes
  int64_t group_j;           ///< columns of B are packed together in multiples of this
  int64_t narrow_j;          ///< B is cut along R only where not even this many columns fit
  int64_t element_bytes;     ///< of packed panels
  int64_t ahead_terms;       ///< terms of a step of ProductAhead; 0 = `multiply` does not ask for memory ahead
  bool stores_meanwhile;     ///< `multiply` stores a finished block (not a transposed one) beside its own work
  int64_t b_bytes;           ///< what the packed part of B may take, so that it stays in the second-level cache
  bool copies_a;             ///< `multiply` packs A itself, a panel at a time and the next one ahead: block_i = panel_i
  /// True when A of this form must be packed whole; else `multiply` reads full panels of it in place.
  bool (*must_pack_a)(const Product&);
  /// True when `multiply` should pack B while it reads it for the first time; `near`: B has been asked for ahead.
  bool (*packs_meanwhile)(const Product&, bool near);
  /// True when `multiply` should read B in place, since there are too few rows to pack it for.
  bool (*reads_b_in_place)(const Product&);
  void (*pack_a)(const Product&, int64_t panel, int64_t count, void* packed);  ///< `count` panels, all of R
  void (*pack_b)(const Product&, int64_t j0, int64_t columns, int64_t r0, int64_t r1, void* packed);
  void (*multiply)(const Product&, const ProductBlock&);
  /// Bias, activation, rounding: the finished block to its place. `scratch` is as large as the block.
  void (*store)(const Product&, const ProductBlock&, float* scratch);
  void (*begin)();  ///< once per thread before the others
  void (*end)();
};

/// Sums of the columns [j0, j0 + columns) of dy (rows x ld): by chunks of 256 rows, chunks in order.
struct ColumnSums {
  const void* dy = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0, ld = 0, j0 = 0, columns = 0;
  float* sums = nullptr;  ///< sums[j0 ...] are written
  bool add = false;
};

const ProductEngine& portable_engine();
const ProductEngine& avx512_engine();
const ProductEngine& amx_engine();
const ProductEngine& split_amx_engine();  ///< f32 as sums of bf16 tile products

void column_sums_portable(const ColumnSums&);
void column_sums_avx512(const ColumnSums&);

}  // namespace permafrost
