#include <cstring>
#include <limits>
#include <memory>

#include "core/base/narrow.h"
#include "core/device/cuda.h"
#include "core/device/cuda_launch.h"

namespace permafrost::cuda {

namespace {

constexpr unsigned long long kNoFault = std::numeric_limits<unsigned long long>::max();

std::string version_text(int version) { return concat(version / 1000, ".", version % 1000 / 10); }

void use(int device) {
  const int count = device_count();
  if (count == 0) fail(ErrorKind::kInvalidArgument, "device: cuda:", device, " cannot be used: ", why_unavailable());
  if (device < 0 || device >= count)
    fail(ErrorKind::kInvalidArgument, "device: index must lie in 0..", count - 1, "; got cuda:", device);
  PERMAFROST_CUDA(cudaSetDevice(device));
}

std::string gibibytes(size_t bytes) {
  const auto tenths = (bytes * 10 + (size_t{1} << 29)) >> 30;
  return concat(tenths / 10, ".", tenths % 10, " GiB");
}

/// What the same kernel says on CPU.
[[noreturn]] void throw_refusal(const Faults& faults) {
  const auto what = static_cast<Refusal>(faults.first >> 56);
  const auto place = static_cast<int64_t>(faults.first >> 32 & 0xffffff);
  const auto value = static_cast<int32_t>(static_cast<uint32_t>(faults.first));
  const auto say = [&](const char* kernel, const char* values, int64_t last, const char* where) {
    fail(ErrorKind::kInvalidArgument, kernel, ": ", values, " must lie in 0..", last, "; got ", value, " at ", where,
         " ", place);
  };
  switch (what) {
    case Refusal::kNone:
      break;
    case Refusal::kEmbeddingId:
      say("embedding", "ids", faults.limit - 1, "row");
      break;
    case Refusal::kLabel:
      say("cross_entropy", "labels other than -100", faults.limit - 1, "row");
      break;
    case Refusal::kLength:
    case Refusal::kOpenLength:
      fail(ErrorKind::kInvalidArgument, "attention: mask.", what == Refusal::kLength ? "lengths" : "open_lengths",
           " must lie in 0..", faults.limit, "; got ", value, " for sample ", place);
    case Refusal::kPosition:
      say("write_tokens", "positions", faults.limit, "sample");
      break;
    case Refusal::kRow:
      say("select_rows", "rows and lengths", faults.limit, "row");
      break;
    case Refusal::kEpoch:
      fail(ErrorKind::kInvalidArgument, "dropout: epoch must fit 32 bits; got another");
  }
  fail(ErrorKind::kInternal, "cuda: a kernel refused its data for a reason that is not known");
}

}  // namespace

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  fail(ErrorKind::kInternal, "cuda: ", call, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
}

bool built() { return true; }

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string why_unavailable() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return "";
  cudaGetLastError();
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "this machine has no NVIDIA driver; install one for CUDA " + runtime_version() + " or later";
  if (error == cudaSuccess) return "the NVIDIA driver sees no GPU; is one assigned to this job (CUDA_VISIBLE_DEVICES)?";
  return concat("the NVIDIA driver (for CUDA ", version_text(driver), "; this build uses ", runtime_version(),
                ") reports ", cudaGetErrorString(error));
}

DeviceInfo device_info(int device) {
  use(device);
  cudaDeviceProp properties{};
  PERMAFROST_CUDA(cudaGetDeviceProperties(&properties, device));
  size_t free_bytes = 0, total_bytes = 0;
  PERMAFROST_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return {.name = properties.name,
          .major = properties.major,
          .minor = properties.minor,
          .processors = properties.multiProcessorCount,
          .memory_bytes = narrow<int64_t>(total_bytes),
          .free_bytes = narrow<int64_t>(free_bytes),
          .shared_bytes = narrow<int64_t>(properties.sharedMemPerBlockOptin)};
}

std::string driver_version() {
  int version = 0;
  PERMAFROST_CUDA(cudaDriverGetVersion(&version));
  return version_text(version);
}

std::string runtime_version() {
  int version = 0;
  PERMAFROST_CUDA(cudaRuntimeGetVersion(&version));
  return version_text(version);
}

std::byte* allocate(std::string_view name, int64_t bytes, int device) {
  use(device);
  void* memory = nullptr;
  if (cudaMalloc(&memory, narrow<size_t>(bytes)) != cudaSuccess) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    PERMAFROST_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    fail(ErrorKind::kStorage, "Buffer ", name, ": device cuda:", device, " must have ", bytes,
         " bytes for it; got one with ", gibibytes(free_bytes), " free of ", gibibytes(total_bytes),
         " (other processes on it count too)");
  }
  PERMAFROST_CUDA(cudaMemsetAsync(memory, 0, narrow<size_t>(bytes), nullptr));
  PERMAFROST_CUDA(cudaStreamSynchronize(nullptr));
  return static_cast<std::byte*>(memory);
}

void release(std::byte* memory, int device) noexcept {
  if (!memory || cudaSetDevice(device) != cudaSuccess) return;
  cudaFree(memory);
}

std::byte* allocate_pinned(std::string_view name, int64_t bytes, int device) {
  use(device);
  void* memory = nullptr;
  if (cudaHostAlloc(&memory, narrow<size_t>(bytes), cudaHostAllocMapped) != cudaSuccess) {
    cudaGetLastError();
    fail(ErrorKind::kStorage, "Buffer ", name, ": the system must pin ", bytes, " bytes of host memory; it does not");
  }
  std::memset(memory, 0, narrow<size_t>(bytes));
  return static_cast<std::byte*>(memory);
}

void release_pinned(std::byte* memory) noexcept {
  if (memory) cudaFreeHost(memory);
}

Queue* create_queue(int device) {
  const DeviceInfo info = device_info(device);
  auto queue = std::make_unique<Queue>();
  queue->device = device;
  queue->processors = info.processors;
  queue->shared_bytes = info.shared_bytes;
  queue->faults = reinterpret_cast<Faults*>(allocate_pinned("faults of a stream", sizeof(Faults), device));
  queue->faults->first = kNoFault;
  const cudaError_t error = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) release_pinned(reinterpret_cast<std::byte*>(queue->faults));
  check(error, "cudaStreamCreateWithFlags");
  return queue.release();
}

void destroy_queue(Queue* queue) noexcept {
  if (!queue) return;
  cudaSetDevice(queue->device);
  cudaStreamSynchronize(queue->stream);
  if (queue->destroy_matmul) queue->destroy_matmul(queue->matmul);
  cudaStreamDestroy(queue->stream);
  release_pinned(reinterpret_cast<std::byte*>(queue->faults));
  delete queue;
}

void synchronize(Queue& queue) {
  PERMAFROST_CUDA(cudaStreamSynchronize(queue.stream));
  const Faults faults = *queue.faults;
  if (faults.first == kNoFault) return;
  queue.faults->first = kNoFault;
  throw_refusal(faults);
}

void copy(Queue& queue, void* to, const void* from, int64_t bytes) {
  if (bytes > 0) PERMAFROST_CUDA(cudaMemcpyAsync(to, from, narrow<size_t>(bytes), cudaMemcpyDefault, queue.stream));
}

void fill(Queue& queue, void* to, int byte, int64_t bytes) {
  if (bytes > 0) PERMAFROST_CUDA(cudaMemsetAsync(to, byte, narrow<size_t>(bytes), queue.stream));
}

struct Mark {
  cudaEvent_t event = nullptr;
};

Mark* create_mark(Queue& queue) {
  auto mark = std::make_unique<Mark>();
  PERMAFROST_CUDA(cudaEventCreateWithFlags(&mark->event, cudaEventDisableTiming));
  const cudaError_t error = cudaEventRecord(mark->event, queue.stream);
  if (error != cudaSuccess) cudaEventDestroy(mark->event);
  check(error, "cudaEventRecord");
  return mark.release();
}

void destroy_mark(Mark* mark) noexcept {
  if (!mark) return;
  cudaEventDestroy(mark->event);
  delete mark;
}

bool reached(const Mark& mark) {
  const cudaError_t error = cudaEventQuery(mark.event);
  if (error == cudaErrorNotReady) return false;
  check(error, "cudaEventQuery");
  return true;
}

void wait(const Mark& mark) { PERMAFROST_CUDA(cudaEventSynchronize(mark.event)); }

}  // namespace permafrost::cuda
