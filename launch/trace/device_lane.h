#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/device/cuda.h"
#include "launch/trace/marked_work.h"
#include "launch/trace/recorder.h"

namespace permafrost {

/// When a device ran what the host gave it: pieces of marked work, whose times become spans of a lane. As there, marks
/// are made once, no call but the constructor throws, and an error of the driver stops the lane.
class DeviceLane {
 public:
  /// For at most `room` pieces of work between two calls of collect. queue: of the device, whose time is taken by it;
  /// the work is of this one unless said otherwise. `queue` and `lane` must outlive it.
  DeviceLane(cuda::Queue& queue, TraceLane& lane, size_t room);

  /// Waits for the queue, and from then on takes its time here for that of the host.
  void take_origin();
  void begin(uint32_t name, int64_t number) { begin(name, number, queue_); }
  /// The same of work in another queue of the device, of one at a time between two calls of collect.
  void begin(uint32_t name, int64_t number, cuda::Queue& queue);
  void end();
  /// Waits for the last piece of work and writes the spans of all.
  void collect();

  const std::string& failure() const { return work_.failure(); }

 private:
  cuda::Queue& queue_;
  TraceLane& lane_;
  cuda::OwnedMark origin_;
  int64_t origin_time_ = 0;  // of the host
  MarkedWork work_;
  bool has_origin_ = false;
};

}  // namespace permafrost
