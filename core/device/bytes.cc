#include "core/device/bytes.h"

#include <cstring>

#include "core/base/narrow.h"
#include "core/device/cuda.h"

namespace permafrost {

void copy_bytes(const Context& context, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  if (context.device.kind == DeviceKind::kCuda) return cuda::copy(*context.stream.queue(), to, from, bytes);
  std::memcpy(to, from, narrow<size_t>(bytes));
}

void fill_bytes(const Context& context, void* to, int byte, int64_t bytes) {
  if (bytes == 0) return;
  if (context.device.kind == DeviceKind::kCuda) return cuda::fill(*context.stream.queue(), to, byte, bytes);
  std::memset(to, byte, narrow<size_t>(bytes));
}

void finish(const Context& context) {
  if (context.device.kind == DeviceKind::kCuda) cuda::synchronize(*context.stream.queue());
}

}  // namespace permafrost
