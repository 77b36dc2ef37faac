#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "core/device/buffer.h"
#include "core/device/thread_pool.h"
#include "core/tensor/tensor.h"

namespace permafrost::bench {

/// One of the things compared: what is timed, and what wakes its threads just before.
struct Side {
  std::function<void()> call;
  bool openmp = false;  ///< its threads are OpenMP's
};

/// Times sides against each other: in rounds of five calls each, every call after both cores' second-level caches have
/// been swept, so that weights and activations come from where they come from in a training step. After a round it
/// waits until OpenMP's idle threads have stopped spinning, which would take a core from the next side.
class Stopwatch {
 public:
  /// samples: at least so many calls per side; more for short calls.
  Stopwatch(ThreadPool& pool, int samples);
  /// Median seconds per side.
  std::vector<double> medians(const std::vector<Side>& sides);

 private:
  void sweep();
  void wake(bool openmp);

  ThreadPool& pool_;
  int samples_;
  Buffer sweep_;
};

/// Values in [-1, 1) (f32 or bf16), some thousands of them over and over: zeros would let the processor clock higher.
void fill_uniform(const Tensor& tensor);

/// Sets the number of OpenMP threads, for oneDNN.
void set_openmp_threads(int threads);

/// Bytes per second of a copy of `bytes` bytes (read and written counted) with plain stores.
double copy_bandwidth(ThreadPool& pool, Stopwatch& watch, int64_t bytes);

/// Multiply-adds that touch registers alone, on every thread of the pool, in FLOP/s: AMX tiles of bf16, or f32 FMA.
/// 0 when the processor lacks them.
double peak_bf16(ThreadPool& pool);
double peak_f32(ThreadPool& pool);

}  // namespace permafrost::bench
