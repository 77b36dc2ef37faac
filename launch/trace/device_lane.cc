#include "launch/trace/device_lane.h"

#include <algorithm>
#include <cmath>

namespace permafrost {

DeviceLane::DeviceLane(cuda::Queue& queue, TraceLane& lane, size_t room)
    : queue_(queue), lane_(lane), origin_(cuda::create_timed_mark(queue)), work_(queue, room) {}

void DeviceLane::take_origin() {
  work_.guarded([&] {
    cuda::record(*origin_, queue_);
    cuda::wait(*origin_);  // for everything before
    const int64_t before = trace_clock();
    cuda::record(*origin_, queue_);
    cuda::wait(*origin_);
    origin_time_ = before + (trace_clock() - before) / 2;
    has_origin_ = true;
  });
}

void DeviceLane::begin(uint32_t name, int64_t number, cuda::Queue& queue) {
  if (has_origin_ && lane_.records()) work_.begin(name, number, queue);
}

void DeviceLane::end() { work_.end(); }

void DeviceLane::collect() {
  const auto time_of = [&](const cuda::OwnedMark& mark) -> int64_t {
    return origin_time_ + std::llround(cuda::milliseconds_between(*origin_, *mark) * 1e6);
  };
  int64_t earliest = INT64_MIN;  // times are rounded each by itself; work of one queue does not overlap
  work_.collect([&](const MarkedWork::Piece& piece) {
    const int64_t begin = std::max(time_of(piece.begin), earliest), end = std::max(time_of(piece.end), begin);
    lane_.add(static_cast<uint32_t>(piece.what), begin, end, piece.number);
    earliest = end;
  });
}

}  // namespace permafrost
