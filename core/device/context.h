#pragma once
#include "core/device/device.h"
#include "core/device/stream.h"
#include "core/device/thread_pool.h"

namespace permafrost {

/// Whom workspaces are sized for: kernels of a kind of device, on at most so many threads of a CPU.
struct Workers {
  Workers(int threads = 1, DeviceKind device = DeviceKind::kCpu)
      : threads(threads), device(device) {}  // NOLINT: converts
  int threads;
  DeviceKind device;
};

/// Everything a kernel needs to know about where it runs. Passed to every kernel; nothing is ambient.
struct Context {
  Device device = Device::cpu();
  ThreadPool* pool = nullptr;                ///< CPU only; never null there
  StreamView stream = StreamView::caller();  ///< a stream of the device on CUDA
};

}  // namespace permafrost
