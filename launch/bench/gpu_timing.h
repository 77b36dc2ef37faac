#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/context.h"
#include "core/tensor/tensor.h"

namespace permafrost::bench {

/// Puts one call of what is measured into the stream. turn: counts calls; takes its memory from one of several sets, so
/// that nothing is still in the device's cache that would not be in a training step.
using GpuCall = std::function<void(int64_t turn)>;

/// Times calls of a stream against each other. A take is as many calls in a row as last some milliseconds, from an idle
/// stream until the host sees that they are done; sides take turns, so that a clock that falls slows all of them. What
/// it costs the host to launch shows in calls shorter than that: some microseconds.
class GpuStopwatch {
 public:
  /// takes: of each side. seconds: of each take; 0: one call.
  GpuStopwatch(Stream& stream, int takes, double seconds) : stream_(stream), takes_(takes), seconds_(seconds) {}
  /// Seconds per call, by side: those of every take.
  std::vector<std::vector<double>> takes(const std::vector<GpuCall>& sides);

 private:
  double take(const GpuCall& call, int64_t calls);

  Stream& stream_;
  int takes_;
  double seconds_;
  int64_t turn_ = 0;
};

/// Owns tensors in the memory of a device.
class GpuTensors {
 public:
  explicit GpuTensors(Stream& stream) : stream_(stream) {}
  /// Uniform values in [-1, 1) for f32 and bf16, some thousands of them over and over; zeros for others.
  Tensor make(DType dtype, const Shape& shape);
  /// i32 below `limit`, scattered.
  Tensor indices(int64_t count, int64_t limit);
  /// Bytes of all that was made.
  int64_t bytes() const { return bytes_; }

 private:
  Stream& stream_;
  std::deque<Buffer> buffers_;
  int64_t bytes_ = 0;
};

/// What a device can do at most, measured by itself: see GpuCeilings::measure.
struct GpuCeilings {
  GpuCall product;                           ///< the largest product of bf16 matrices, in f32 sums
  GpuCall copy;                              ///< device memory to device memory
  double product_flops = 0, copy_bytes = 0;  ///< of one call; bytes read and written
  double bf16 = 0, tf32 = 0, f32 = 0;        ///< FLOP/s of products, medians
  double copy_bytes_per_s = 0;
};
/// side: rows, columns and terms of the products; copied: bytes read and as many written.
GpuCeilings measure_ceilings(Stream& stream, GpuStopwatch& watch, int64_t side, int64_t copied);

/// How the kernels are called: the stream's context.
Context gpu_context(Stream& stream);

/// Memory of a call, several times: so much that a cache cannot hold it, or `most` times.
int64_t gpu_sets(int64_t bytes_of_one, int64_t most = 16);

}  // namespace permafrost::bench
