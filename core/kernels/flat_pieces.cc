#include "core/kernels/flat_pieces.h"

#include <algorithm>
#include <cstring>

#include "core/device/bytes.h"
#include "core/device/stream.h"

namespace permafrost {

void append_pieces(std::vector<FlatPiece>& pieces, FlatPiece part, Device device) {
  constexpr int64_t kOfABlock = 4096;
  const int64_t most = device.kind == DeviceKind::kCuda ? kOfABlock : std::max<int64_t>(part.elements, 1);
  const int64_t item = size_of(static_cast<DType>(part.working_dtype));
  for (int64_t done = 0; done < part.elements; done += most) {
    FlatPiece piece = part;
    piece.begin += done;
    piece.elements = std::min(most, part.elements - done);
    piece.working_byte += done * item;
    pieces.push_back(piece);
  }
}

PieceTable::PieceTable(const std::vector<FlatPiece>& pieces, Device device)
    : memory_("table of pieces", std::ssize(pieces) * int64_t{sizeof(FlatPiece)}, device), pieces_(std::ssize(pieces)) {
  if (pieces.empty()) return;  // a rank without a part of the slice
  if (device.kind == DeviceKind::kCpu) {
    std::memcpy(memory_.data(), pieces.data(), pieces.size() * sizeof(FlatPiece));
    return;
  }
  Stream stream(device);
  copy_bytes({.device = device, .pool = nullptr, .stream = stream}, memory_.data(), pieces.data(), memory_.bytes());
  stream.synchronize();
}

Tensor PieceTable::view() const { return {memory_.data(), DType::kI64, Shape{pieces_, 5}, memory_.device()}; }

}  // namespace permafrost
