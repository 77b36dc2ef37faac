#include "parallel/group/nccl/nccl_memory.h"

#include <cuda_runtime.h>

#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/device/cuda.h"
#include "parallel/group/nccl/nccl_api.h"
#include "parallel/group/nccl/nccl_group.h"

namespace permafrost {
namespace {

std::mutex pieces_mutex;
std::map<const std::byte*, int64_t, std::less<>> nccl_pieces;  // place -> bytes

void release_nccl_memory(std::byte* memory) noexcept {
  {
    const std::lock_guard lock(pieces_mutex);
    nccl_pieces.erase(memory);
  }
  nccl_api().MemFree(memory);
}

}  // namespace

bool is_nccl_memory(const std::byte* memory, int64_t bytes) {
  const std::lock_guard lock(pieces_mutex);
  auto next = nccl_pieces.upper_bound(memory);
  if (next == nccl_pieces.begin()) return false;
  const auto& [place, size] = *--next;
  return memory + bytes <= place + size;
}

Buffer nccl_memory(std::string name, int64_t bytes, Device device) {
  PERMAFROST_CHECK(bytes >= 0, "Buffer ", name, ": bytes must not be negative; got ", bytes);
  const NcclApi& api = nccl_api();
  const cuda::DeviceInfo info = cuda::device_info(device.index);  // makes it the thread's device
  if (bytes == 0) return {std::move(name), 0, device};
  void* memory = nullptr;
  const ncclResult_t result = api.MemAlloc(&memory, narrow<size_t>(bytes));
  if (result != ncclSuccess) {
    cudaGetLastError();
    fail(ErrorKind::kStorage, "Buffer ", name, ": NCCL must allocate ", bytes, " bytes on cuda:", device.index,
         "; got ", api.GetErrorString(result), " with ", info.free_bytes >> 20, " of ", info.memory_bytes >> 20,
         " MiB free");
  }
  auto* place = static_cast<std::byte*>(memory);
  {
    const std::lock_guard lock(pieces_mutex);
    nccl_pieces[place] = bytes;
  }
  Buffer buffer = Buffer::adopt(std::move(name), place, bytes, device, release_nccl_memory);
  const cudaError_t cleared = cudaMemsetAsync(memory, 0, narrow<size_t>(bytes), nullptr);
  if (cleared != cudaSuccess || cudaStreamSynchronize(nullptr) != cudaSuccess)
    fail(ErrorKind::kInternal, "Buffer ", buffer.name(), ": cudaMemsetAsync: ", cudaGetErrorString(cleared));
  return buffer;
}

}  // namespace permafrost
