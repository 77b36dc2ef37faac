#include "launch/trace/marked_work.h"

#include <utility>

namespace permafrost {

MarkedWork::MarkedWork(cuda::Queue& queue, size_t room) : queue_(queue) {
  pieces_.reserve(room);
  const auto mark = [&] { return cuda::OwnedMark(cuda::create_timed_mark(queue)); };
  for (size_t i = 0; i < room; ++i) pieces_.push_back({mark(), mark()});
}

void MarkedWork::begin(size_t what, int64_t number, cuda::Queue& queue) {
  if (count_ == pieces_.size()) return;
  guarded([&] {
    Piece& piece = pieces_[count_];
    piece.what = what;
    piece.number = number;
    cuda::record(*piece.begin, queue);
    open_ = &queue;
  });
}

void MarkedWork::end() {
  if (!open_) return;
  cuda::Queue& queue = *std::exchange(open_, nullptr);
  guarded([&] {
    cuda::record(*pieces_[count_].end, queue);
    ++count_;
  });
}

}  // namespace permafrost
