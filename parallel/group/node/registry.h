#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace permafrost {

/// Where something lies in memory that all ranks of a group see; piece 0: nowhere.
struct PieceLocation {
  uint64_t piece = 0;
  int64_t offset = 0;
};

/// The pieces that all ranks of one group see, each under a number that the ranks agree on, at an address of this rank.
/// A split group also knows its parent's, because its ranks are among the parent's. Callable from any thread.
class PieceRegistry {
 public:
  explicit PieceRegistry(std::shared_ptr<PieceRegistry> parent) : parent_(std::move(parent)) {}

  void add(uint64_t piece, std::byte* data, int64_t bytes);
  void remove(uint64_t piece) noexcept;
  /// Where [data, data + bytes) lies; nowhere unless it is within one piece.
  PieceLocation find(const std::byte* data, int64_t bytes) const;
  /// The address here of `bytes` at a location; null when this rank does not have them.
  const std::byte* address(PieceLocation location, int64_t bytes) const;

 private:
  struct Piece {
    uint64_t number = 0;
    std::byte* data = nullptr;
    int64_t bytes = 0;
  };
  std::shared_ptr<PieceRegistry> parent_;
  mutable std::mutex mutex_;
  std::vector<Piece> pieces_;
};

}  // namespace permafrost
