#include "launch/training/device_time.h"

namespace permafrost {

void DeviceTime::begin() {
  if (!queue_) return;
  if (used_ == stretches_.size())
    stretches_.push_back(
        {cuda::OwnedMark(cuda::create_timed_mark(*queue_)), cuda::OwnedMark(cuda::create_timed_mark(*queue_))});
  cuda::record(*stretches_[used_].begin, *queue_);
}

void DeviceTime::end() {
  if (queue_) cuda::record(*stretches_[used_++].end, *queue_);
}

double DeviceTime::take() {
  double milliseconds = 0;
  for (size_t i = 0; i < used_; ++i)
    milliseconds += cuda::milliseconds_between(*stretches_[i].begin, *stretches_[i].end);
  used_ = 0;
  return milliseconds;
}

}  // namespace permafrost
