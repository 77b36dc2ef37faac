#pragma once
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "core/device/cuda.h"

namespace permafrost {

/// Pieces of work that the host gives a device, each with a mark before and behind it in its queue. Marks are made here
/// and used again; no call but the constructor throws or allocates. An error of the driver ends it (what it was is in
/// failure()); the program that gives the work meets it, too.
class MarkedWork {
 public:
  struct Piece {
    cuda::OwnedMark begin, end;
    size_t what = 0;  ///< both as begin() was told
    int64_t number = 0;
  };
  /// For at most `room` pieces between two calls of collect; what is more is left out. queue: where work is that is not
  /// said to be in another one. It must outlive this.
  MarkedWork(cuda::Queue& queue, size_t room);

  void begin(size_t what, int64_t number) { begin(what, number, queue_); }
  /// Of work in another queue of the device; of one at a time between two calls of collect.
  void begin(size_t what, int64_t number, cuda::Queue& queue);
  void end();
  /// Waits for the last piece, calls each(piece) in the order in which they were given, and forgets them; also one that
  /// was not ended.
  template <typename Each>
  void collect(Each each) {
    const size_t count = count_;
    count_ = 0;
    open_ = nullptr;
    if (count == 0) return;
    guarded([&] {
      cuda::wait(*pieces_[count - 1].end);
      for (size_t i = 0; i < count; ++i) each(pieces_[i]);
    });
  }

  /// call(), unless there was an error before; one of it is the failure from then on.
  template <typename Call>
  void guarded(Call call) {
    if (!failure_.empty()) return;
    try {
      call();
    } catch (const std::exception& error) {
      failure_ = error.what();
    }
  }
  const std::string& failure() const { return failure_; }

 private:
  cuda::Queue& queue_;
  std::vector<Piece> pieces_;
  size_t count_ = 0;
  cuda::Queue* open_ = nullptr;  // of the piece of work that has begun
  std::string failure_;
};

}  // namespace permafrost
