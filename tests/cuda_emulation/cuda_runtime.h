#pragma once
// Stands in for CUDA's own header where the sources of the CUDA backend are compiled by the host's compiler, so that
// their arithmetic is tested on machines without a GPU: threads of a block run one after the other, those that
// wait each on a stack of its own, and hand over at barriers. What is declared here means what CUDA's documentation
// says of it; what the backend does not use is missing. Says nothing about speed, nor about races between blocks.
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#define PERMAFROST_CUDA_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) alignas(n)
// One block runs at a time, so what its threads share is one object. A kernel that reads it before writing finds what
// another block left, as on a device.
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

struct CUstream_st;

namespace cuda_emulation {
void sync_threads();
void sync_warp(unsigned mask);
std::byte* dynamic_shared();
/// The time that events see, in milliseconds: passes with every piece of work, more where an emulated library says so.
/// Slower than the host's, or work would end after what the host did behind it.
extern std::atomic<double> clock;
/// Runs body once for each thread of each block.
void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

/// Device memory is out of the host's reach, as on a machine with a GPU, except while one of these lives: during
/// kernels and copies.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

/// The one GPU looks like another one to every thread, as to ranks that have one each.
extern std::atomic<bool> a_gpu_for_each_thread;

/// Pieces of work that a capture takes; one more makes it invalid, as what cannot be captured does.
extern std::atomic<size_t> capture_room;

/// Work of a library on a stream that does not end before it is released: what is given to the stream afterwards waits.
class Hold;
std::shared_ptr<Hold> hold(CUstream_st* stream);
/// What the stream had last; null for nothing.
std::shared_ptr<Hold> last_hold(CUstream_st* stream);
void release(Hold& hold);
bool released(const Hold& hold);
/// Waits for the work that the stream has.
void wait_for(CUstream_st* stream);

constexpr size_t kMaxThreads = 1024, kWarp = 32;
/// Of the block's threads, the one that runs.
extern size_t current_thread;
inline int lane() { return static_cast<int>(current_thread % kWarp); }

/// What a thread gives to the lanes of its warp. A lane that gives its value after the next waits until all have given
/// the next, and so read this one: two places.
struct alignas(8) LaneValues {
  std::byte places[2][8];
  size_t given;  // so far in this block
};
extern std::array<LaneValues, kMaxThreads> lane_values;

/// The value that the lane `source` of this warp gave, when all its lanes have.
template <typename T>
T exchanged(const T& mine, int source) {
  static_assert(sizeof(T) <= sizeof(LaneValues::places[0]));
  LaneValues& own = lane_values[current_thread];
  const size_t place = ++own.given % 2;
  std::memcpy(own.places[place], &mine, sizeof(T));
  sync_warp(0xffffffffu);
  T theirs;
  std::memcpy(&theirs, lane_values[current_thread / kWarp * kWarp + static_cast<size_t>(source)].places[place],
              sizeof(T));
  return theirs;
}

/// Shows an object to the last of the 32 lanes of this warp that comes here, which gets all, in the order of lanes; the
/// others get null. All then call sync_warp, and the last may write to the objects before it does.
void* const* show(void* mine);

/// What a warp does as one: body(all), all(lane) what that lane brought, runs once, when all 32 are there.
template <typename T, typename Body>
void together(T mine, Body&& body) {
  if (void* const* all = show(&mine)) body([all](int lane) -> const T& { return *static_cast<const T*>(all[lane]); });
  sync_warp(0xffffffffu);
}

/// c += a b: for each element one product after the other, each rounded, as is each sum.
void multiply_add(const float (&a)[16][16], const float (&b)[16][8], float (&c)[16][8]);
}  // namespace cuda_emulation

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

inline void __syncthreads() { cuda_emulation::sync_threads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_emulation::sync_warp(mask); }
inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned, T value, int source, int width = 32) {
  const int lane = cuda_emulation::lane();
  return cuda_emulation::exchanged(value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
  const int lane = cuda_emulation::lane(), source = lane ^ mask;
  return cuda_emulation::exchanged(value, (source & ~(width - 1)) == (lane & ~(width - 1)) ? source : lane);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
  const int lane = cuda_emulation::lane(), source = lane + static_cast<int>(delta);
  return cuda_emulation::exchanged(value, (source & ~(width - 1)) == (lane & ~(width - 1)) ? source : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  unsigned bits = predicate != 0 ? 1u << cuda_emulation::lane() : 0u;
  for (int offset = 16; offset > 0; offset /= 2) bits |= __shfl_xor_sync(mask, bits, offset);
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Threads take turns at barriers alone, so plain memory accesses are atomic.
template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <typename T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  if (value < old) *address = value;
  return old;
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  const T old = *address;
  if (old == compare) *address = value;
  return old;
}

inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * static_cast<uint64_t>(b)) >> 32);
}
inline long long __double2ll_rn(double x) { return std::llrint(x); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}

// The runtime. Streams do everything at once, but for what is captured into a graph, and behind a hold.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600,
  cudaErrorHostMemoryAlreadyRegistered = 712,
  cudaErrorHostMemoryNotRegistered = 713,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureUnjoined = 904,
  cudaErrorStreamCaptureIsolation = 905,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaStreamCaptureStatus {
  cudaStreamCaptureStatusNone,
  cudaStreamCaptureStatusActive,
  cudaStreamCaptureStatusInvalidated
};
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed
};
constexpr unsigned cudaHostRegisterDefault = 0;
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2, cudaHostAllocMapped = 2;
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;
struct cudaUUID_t {
  char bytes[16];
};
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  size_t totalGlobalMem, sharedMemPerBlockOptin;
  cudaUUID_t uuid;
  int pciDomainID, pciBusID, pciDeviceID;
};

const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int device);
cudaError_t cudaSetDevice(int);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMalloc(void**, size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaHostAlloc(void**, size_t, unsigned flags);
cudaError_t cudaFreeHost(void*);
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventQuery(cudaEvent_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*);
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
cudaError_t cudaHostRegister(void*, size_t, unsigned flags);
cudaError_t cudaHostUnregister(void*);
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);

namespace cuda_emulation {
/// Work for a stream: done at once, or written down while the stream is captured.
cudaError_t submit(cudaStream_t stream, std::function<void()> work);
}  // namespace cuda_emulation
template <typename T>
cudaError_t cudaFuncSetAttribute(T*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<Parameters...> kept(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  return cuda_emulation::submit(config->stream, [config = *config, kernel, kept] {
    cuda_emulation::run(config.gridDim, config.blockDim, config.dynamicSmemBytes, [&] { std::apply(kernel, kept); });
  });
}
