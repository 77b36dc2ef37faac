#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/device/context.h"
#include "core/device/cuda.h"

// For the sources of the CUDA backend alone (*.cu).
namespace permafrost::cuda {

/// Data that a kernel may refuse. A kernel cannot throw: it notes the place, and Stream::synchronize throws.
enum class Refusal : uint8_t { kEmbeddingId, kLabel, kLength, kOpenLength, kPosition, kRow, kRowLength, kEpoch };

/// What data must be: 0..largest.
struct Rule {
  Refusal what;
  int64_t largest;
  friend bool operator==(const Rule&, const Rule&) = default;
};

/// What a kernel refuses by. The word is one per queue, in memory that host and device see: rule (10 bits, the highest;
/// the queue's list of them), place (22), value (32). The smallest counts, so that it does not depend on who comes
/// first. All ones: nothing was refused.
struct Refuser {
  unsigned long long* first;
  uint32_t rule;
};

struct Queue {
  int device = 0;
  int processors = 0;
  int64_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  unsigned long long* refused = nullptr;         ///< see Refuser
  std::vector<Rule> rules;                       ///< that kernels of this queue had so far
  void* matmul = nullptr;                        ///< what matmul_cuda.cu keeps: see there
  void (*destroy_matmul)(void*) = nullptr;       ///< of it; null = nothing kept
  bool tf32 = false;                             ///< see allow_tf32
  void* attention = nullptr;                     ///< what cudnn/attention.cu keeps
  void (*destroy_attention)(void*) = nullptr;    ///< of it; null = nothing kept
  CudnnUse cudnn = CudnnUse::kWherePays;         ///< see use_cudnn
  int64_t cudnn_calls = 0;                       ///< see cudnn_calls
  std::shared_ptr<void> attention_answers;       ///< what attention_library_cuda.cu keeps
  std::function<void(const std::string&)> note;  ///< see on_note
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
  PERMAFROST_CUDA(cudaSetDevice(queue_of(context).device));  // of this thread; costs nothing when it is
  PERMAFROST_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...));
}

Refuser refuser(const Context& context, Refusal what, int64_t largest);

/// Of a place (a row, a sample) and the value there. To be called by the thread that finds it.
__device__ inline void refuse(const Refuser& by, int64_t place, int32_t value) {
  constexpr int64_t kMost = (int64_t{1} << 22) - 1;
  atomicMin(by.first, (static_cast<unsigned long long>(by.rule) << 54) |
                          (static_cast<unsigned long long>(place < kMost ? place : kMost) << 32) |
                          static_cast<unsigned long long>(static_cast<uint32_t>(value)));
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
