#include "parallel/group/combine.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "core/base/check.h"

namespace permafrost {
namespace {

template <typename T>
T apply(ReduceOp op, T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    switch (op) {
      case ReduceOp::kSum:
        return a + b;
      case ReduceOp::kMax:
        return a > b || a != a ? a : b;  // a NaN on either side is kept
      case ReduceOp::kMin:
        return a < b || a != a ? a : b;
    }
  } else {
    using Unsigned = std::make_unsigned_t<T>;
    switch (op) {
      case ReduceOp::kSum:
        return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
      case ReduceOp::kMax:
        return std::max(a, b);
      case ReduceOp::kMin:
        return std::min(a, b);
    }
  }
  return a;
}

// Tiles stay in the first-level cache; a tile is read from every source before the target is written, which is what
// lets the target be one of the sources.
template <ReduceOp kOp, typename T>
void combine_typed(std::span<const std::byte* const> sources, std::byte* target, int64_t elements) {
  constexpr int64_t kTile = 8192 / static_cast<int64_t>(sizeof(T));
  std::array<T, static_cast<size_t>(kTile)> tile;
  for (int64_t begin = 0; begin < elements; begin += kTile) {
    const auto count = static_cast<size_t>(std::min(kTile, elements - begin));
    std::memcpy(tile.data(), sources[0] + begin * static_cast<int64_t>(sizeof(T)), count * sizeof(T));
    for (const std::byte* source : sources.subspan(1)) {
      const T* values = reinterpret_cast<const T*>(source) + begin;
      for (size_t i = 0; i < count; ++i) tile[i] = apply(kOp, tile[i], values[i]);
    }
    std::memcpy(target + begin * static_cast<int64_t>(sizeof(T)), tile.data(), count * sizeof(T));
  }
}

template <typename T>
void combine_any(ReduceOp op, std::span<const std::byte* const> sources, std::byte* target, int64_t elements) {
  switch (op) {
    case ReduceOp::kSum:
      return combine_typed<ReduceOp::kSum, T>(sources, target, elements);
    case ReduceOp::kMax:
      return combine_typed<ReduceOp::kMax, T>(sources, target, elements);
    case ReduceOp::kMin:
      return combine_typed<ReduceOp::kMin, T>(sources, target, elements);
  }
}

}  // namespace

void combine(ReduceOp op, DType dtype, std::span<const std::byte* const> sources, std::byte* target, int64_t elements) {
  PERMAFROST_CHECK(!sources.empty(), "combine: at least one source is needed; got none");
  switch (dtype) {
    case DType::kU8:
      return combine_any<uint8_t>(op, sources, target, elements);
    case DType::kI32:
      return combine_any<int32_t>(op, sources, target, elements);
    case DType::kI64:
      return combine_any<int64_t>(op, sources, target, elements);
    case DType::kF32:
      return combine_any<float>(op, sources, target, elements);
    case DType::kF64:
      return combine_any<double>(op, sources, target, elements);
    case DType::kBF16:
    case DType::kF16:
      break;
  }
  fail(ErrorKind::kShapeMismatch, "combine: dtype must be u8, i32, i64, f32 or f64; got ", to_string(dtype));
}

}  // namespace permafrost
