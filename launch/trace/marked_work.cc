#include "launch/trace/marked_work.h"

namespace permafrost {

MarkedWork::MarkedWork(cuda::Queue& queue, size_t room) : queue_(queue) {
  pieces_.reserve(room);
  const auto mark = [&] { return cuda::OwnedMark(cuda::create_timed_mark(queue)); };
  for (size_t i = 0; i < room; ++i) pieces_.push_back({mark(), mark()});
}

void MarkedWork::begin(size_t what, int64_t number) {
  if (count_ == pieces_.size()) return;
  guarded([&] {
    Piece& piece = pieces_[count_];
    piece.what = what;
    piece.number = number;
    cuda::record(*piece.begin, queue_);
    open_ = true;
  });
}

void MarkedWork::end() {
  if (!open_) return;
  open_ = false;
  guarded([&] {
    cuda::record(*pieces_[count_].end, queue_);
    ++count_;
  });
}

}  // namespace permafrost
