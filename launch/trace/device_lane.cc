#include "launch/trace/device_lane.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

namespace permafrost {

DeviceLane::DeviceLane(cuda::Queue& queue, TraceLane& lane, size_t room) : queue_(queue), lane_(lane), origin_(make()) {
  work_.reserve(room);
  for (size_t i = 0; i < room; ++i) work_.push_back({make(), make()});
}

template <typename Call>
void DeviceLane::guarded(Call call) {
  if (!failure_.empty()) return;
  try {
    call();
  } catch (const std::exception& error) {
    failure_ = error.what();
  }
}

void DeviceLane::take_origin() {
  guarded([&] {
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
  if (!has_origin_ || !lane_.records() || count_ == work_.size()) return;
  guarded([&] {
    Work& work = work_[count_];
    work.name = name;
    work.number = number;
    cuda::record(*work.begin, queue);
    open_ = &queue;
  });
}

void DeviceLane::end() {
  if (!open_) return;
  cuda::Queue& queue = *std::exchange(open_, nullptr);
  guarded([&] {
    cuda::record(*work_[count_].end, queue);
    ++count_;
  });
}

void DeviceLane::collect() {
  const size_t count = count_;
  count_ = 0;
  open_ = nullptr;
  if (count == 0) return;
  guarded([&] {
    cuda::wait(*work_[count - 1].end);
    const auto time_of = [&](const Mark& mark) -> int64_t {
      return origin_time_ + std::llround(cuda::milliseconds_between(*origin_, *mark) * 1e6);
    };
    int64_t earliest = INT64_MIN;  // times are rounded each by itself; work of one queue does not overlap
    for (size_t i = 0; i < count; ++i) {
      const int64_t begin = std::max(time_of(work_[i].begin), earliest), end = std::max(time_of(work_[i].end), begin);
      lane_.add(work_[i].name, begin, end, work_[i].number);
      earliest = end;
    }
  });
}

}  // namespace permafrost
