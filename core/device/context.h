#pragma once
#include "core/device/device.h"
#include "core/device/stream.h"
#include "core/device/thread_pool.h"

namespace permafrost {

/// Everything a kernel needs to know about where it runs. Passed to every kernel; nothing is ambient.
struct Context {
  Device device = Device::cpu();
  ThreadPool* pool = nullptr;  ///< CPU only; never null there
  StreamView stream = StreamView::caller();  ///< a stream of the device on CUDA
};

}  // namespace permafrost
