#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/device/buffer.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// A part of a flat slice of parameters that belongs to one of them. Kernels that work on many parameters in one pass
/// take a table of pieces, (n, 5) i64, and tables with a row per parameter. Pieces do not overlap.
struct FlatPiece {
  int64_t begin = 0, elements = 0;  ///< of the slice
  int64_t row = 0;                  ///< of the parameter in other tables
  int64_t working_byte = 0;         ///< where its working copy begins, in bytes
  int64_t working_dtype = 0;        ///< DType of that
};
static_assert(sizeof(FlatPiece) == 5 * sizeof(int64_t));

/// The pieces of a parameter's part of a slice, for kernels of a device: on CUDA a block of threads does a piece, so
/// none is large there. Nothing for a part without elements.
void append_pieces(std::vector<FlatPiece>& pieces, FlatPiece part, Device device);

/// What a table in host memory holds.
inline std::span<const FlatPiece> pieces_of(const Tensor& table) {
  return {reinterpret_cast<const FlatPiece*>(table.data<int64_t>()), static_cast<size_t>(table.dim(0))};
}

/// The table as kernels of the device take it.
class PieceTable {
 public:
  PieceTable() = default;
  PieceTable(const std::vector<FlatPiece>& pieces, Device device);
  Tensor view() const;

 private:
  Buffer memory_;
  int64_t pieces_ = 0;
};

}  // namespace permafrost
