#include "parallel/group/node/registry.h"

#include <algorithm>
#include <functional>

namespace permafrost {

void PieceRegistry::add(uint64_t piece, std::byte* data, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  pieces_.push_back({piece, data, bytes});
}

void PieceRegistry::remove(uint64_t piece) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(pieces_, [piece](const Piece& known) { return known.number == piece; });
}

PieceLocation PieceRegistry::find(const std::byte* data, int64_t bytes) const {
  {
    const std::lock_guard lock(mutex_);
    const std::less_equal<const std::byte*> not_after;
    for (const Piece& piece : pieces_)
      if (not_after(piece.data, data) && not_after(data + bytes, piece.data + piece.bytes))
        return {piece.number, data - piece.data};
  }
  return parent_ ? parent_->find(data, bytes) : PieceLocation{};
}

const std::byte* PieceRegistry::address(PieceLocation location, int64_t bytes) const {
  {
    const std::lock_guard lock(mutex_);
    for (const Piece& piece : pieces_)
      if (piece.number == location.piece)
        return location.offset >= 0 && location.offset + bytes <= piece.bytes ? piece.data + location.offset : nullptr;
  }
  return parent_ ? parent_->address(location, bytes) : nullptr;
}

}  // namespace permafrost
