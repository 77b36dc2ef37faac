#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/device/cuda.h"
#include "launch/trace/recorder.h"

namespace permafrost {

/// When a device ran what the host gave it: a mark before and behind each piece of work of one queue, whose times
/// become spans of a lane. Marks are made here and used again; no call but the constructor throws. An error of the
/// driver stops the lane (what it was is in failure()); the program that made it meets it, too.
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

  const std::string& failure() const { return failure_; }

 private:
  using Mark = std::unique_ptr<cuda::Mark, void (*)(cuda::Mark*)>;
  struct Work {
    Mark begin, end;
    uint32_t name = 0;
    int64_t number = 0;
  };
  template <typename Call>
  void guarded(Call call);
  Mark make() const { return {cuda::create_timed_mark(queue_), cuda::destroy_mark}; }

  cuda::Queue& queue_;
  TraceLane& lane_;
  Mark origin_;
  int64_t origin_time_ = 0;  // of the host
  std::vector<Work> work_;
  size_t count_ = 0;
  bool has_origin_ = false;
  cuda::Queue* open_ = nullptr;  // of the piece of work that has begun
  std::string failure_;
};

}  // namespace permafrost
