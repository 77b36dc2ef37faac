#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/context.h"
#include "core/device/cuda.h"
#include "core/tensor/tensor.h"

namespace permafrost::bench {

/// Puts one call of what is measured into the stream. turn: counts calls; takes its memory from one of several sets, so
/// that nothing is still in the device's cache that would not be in a training step.
using GpuCall = std::function<void(int64_t turn)>;

/// Seconds per call of one side, those of every take.
struct GpuTakes {
  std::vector<double> seconds;
  bool host_shows = false;  ///< short calls that cannot be captured: what the host takes to launch them may show
};

/// Times calls of a stream against each other; sides take turns, so that a clock that falls slows all of them. A take
/// is as many calls in a row as last some milliseconds, captured as one CUDA graph beforehand and timed between two
/// events of the stream: what the host takes to give work does not show, as it does not in training, whose programs are
/// graphs too; what the device takes between two kernels does. Calls that last long, or that cannot be captured, are
/// given one by one between the same events.
class GpuStopwatch {
 public:
  /// takes: of each side. seconds: of each take; 0: one call.
  GpuStopwatch(Stream& stream, int takes, double seconds);
  /// By side.
  std::vector<GpuTakes> takes(const std::vector<GpuCall>& sides);

 private:
  struct Side {
    const GpuCall* call = nullptr;
    int64_t calls = 1;
    cuda::OwnedCapture graph;  // null: given one by one
    bool host_shows = false;
  };
  Side prepared(const GpuCall& call);
  double given_one_by_one(const GpuCall& call, int64_t calls);
  double take(const Side& side);

  Stream& stream_;
  int takes_;
  double seconds_;
  int64_t turn_ = 0;
  Buffer lead_;  // filled in front of a graph: the device has work while the host launches what is timed
  cuda::OwnedMark begin_, end_;
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
