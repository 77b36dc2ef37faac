#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "core/base/check.h"
#include "core/device/context.h"
#include "core/device/cuda.h"

// For the sources of the CUDA backend alone (*.cu).
namespace permafrost::cuda {

/// Data that a kernel may refuse. A kernel cannot throw: it notes the first such place, and Stream::synchronize throws.
enum class Refusal : uint32_t {
  kNone,
  kEmbeddingId,
  kLabel,
  kLength,
  kOpenLength,
  kPosition,
  kRow,
  kRowLength,
  kEpoch
};

/// One per queue, in memory that host and device see.
struct Faults {
  /// Refusal (8 bits, the highest), place (24), value (32): the smallest counts, so that it does not depend on who
  /// comes first. All ones: none.
  unsigned long long first;
  long long largest;  ///< that was allowed, 0 the smallest; of kEpoch: what came
};

struct Queue {
  int device = 0;
  int processors = 0;
  int64_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  Faults* faults = nullptr;
  void* matmul = nullptr;                   ///< what matmul_cuda.cu keeps: see there
  void (*destroy_matmul)(void*) = nullptr;  ///< of it; null = nothing kept
  bool tf32 = false;                        ///< see allow_tf32
};

/// Throws Error naming the call and CUDA's words for what went wrong.
void check(cudaError_t error, const char* call);
#define PERMAFROST_CUDA(call) ::permafrost::cuda::check((call), #call)

inline Queue& queue_of(const Context& context) { return *context.stream.queue(); }

/// Starts kernel<<<grid, block, shared_bytes>>>(arguments...) in the order of the context's stream. Nothing for an
/// empty grid.
template <typename... Parameters, typename... Arguments>
void launch(const Context& context, void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes,
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = queue_of(context).stream;
  PERMAFROST_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...));
}

/// To be called by the thread that finds it.
__device__ inline void refuse(Faults* faults, Refusal what, int64_t place, int32_t value, int64_t largest) {
  faults->largest = largest;
  const unsigned long long word = (static_cast<unsigned long long>(what) << 56) |
                                  (static_cast<unsigned long long>(place & 0xffffff) << 32) |
                                  static_cast<unsigned long long>(static_cast<uint32_t>(value));
  atomicMin(&faults->first, word);
}

}  // namespace permafrost::cuda

/// What the threads of a block share, of a size chosen at launch: `Type* name`, aligned to 128 bytes.
#ifdef PERMAFROST_CUDA_EMULATED
#define PERMAFROST_DYNAMIC_SHARED(Type, name) Type* name = reinterpret_cast<Type*>(::cuda_emulation::dynamic_shared())
#else
#define PERMAFROST_DYNAMIC_SHARED(Type, name)                    \
  extern __shared__ __align__(128) unsigned char name##_bytes[]; \
  Type* name = reinterpret_cast<Type*>(name##_bytes)
#endif
