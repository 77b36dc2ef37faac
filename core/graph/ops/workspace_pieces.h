#pragma once
#include <cstddef>
#include <cstdint>

#include "core/base/narrow.h"
#include "core/tensor/tensor.h"

namespace permafrost {

constexpr int64_t kWorkspacePiece = 64;

/// Hands out pieces of an operation's workspace, each from a multiple of kWorkspacePiece bytes. The workspace may begin
/// anywhere, so it must have kWorkspacePiece bytes besides what `bytes` says of its pieces and the rest.
class WorkspacePieces {
 public:
  explicit WorkspacePieces(const Tensor& workspace)
      : next_(static_cast<std::byte*>(workspace.raw())), left_(workspace.bytes()), device_(workspace.device()) {
    const auto off = static_cast<int64_t>(reinterpret_cast<uintptr_t>(next_) % kWorkspacePiece);
    skip(off == 0 ? 0 : kWorkspacePiece - off);
  }

  /// What `take` uses up.
  static int64_t bytes(const TensorSpec& piece) { return round_up(piece.bytes(), kWorkspacePiece); }

  Tensor take(DType dtype, const Shape& shape) {
    const Tensor piece(next_, dtype, shape, device_);
    skip(bytes(piece.spec()));
    return piece;
  }
  /// u8, what was not taken.
  Tensor rest() const { return {next_, DType::kU8, {left_}, device_}; }

 private:
  void skip(int64_t bytes) {
    next_ += bytes;
    left_ -= bytes;
  }

  std::byte* next_;
  int64_t left_;
  Device device_;
};

}  // namespace permafrost
