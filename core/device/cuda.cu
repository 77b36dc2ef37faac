#include "core/device/cuda.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <sstream>
#include <utility>

#include "core/base/narrow.h"
#include "core/device/cuda_launch.h"

#if !defined(PERMAFROST_CUDA_EMULATED) && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define PERMAFROST_HAS_NVTX
#endif

namespace permafrost::cuda {

namespace {

constexpr unsigned long long kNothing = std::numeric_limits<unsigned long long>::max();

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

/// As nvidia-smi writes it.
std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (size_t i = 0; i < 16; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(static_cast<unsigned char>(uuid.bytes[i])));
    text += two;
    if (i == 3 || i == 5 || i == 7 || i == 9) text += '-';
  }
  return text;
}

std::string pci_text(const cudaDeviceProp& properties) {
  char text[40];
  std::snprintf(text, sizeof text, "%04x:%02x:%02x", static_cast<unsigned>(properties.pciDomainID),
                static_cast<unsigned>(properties.pciBusID), static_cast<unsigned>(properties.pciDeviceID));
  return text;
}

/// What the same kernel says on CPU.
[[noreturn]] void throw_refusal(const Rule& rule, int64_t place, int32_t value) {
  const auto say = [&](const char* values, const char* where) {
    fail(ErrorKind::kInvalidArgument, values, " must lie in 0..", rule.largest, "; got ", value, " ", where, " ",
         place);
  };
  switch (rule.what) {
    case Refusal::kEmbeddingId:
      say("embedding: ids", "at row");
      break;
    case Refusal::kLabel:
      fail(ErrorKind::kInvalidArgument, "cross_entropy: labels must lie in 0..", rule.largest, " (V=", rule.largest + 1,
           ") or be -100; got ", value, " at row ", place);
    case Refusal::kLength:
      say("attention: mask.lengths", "for sample");
      break;
    case Refusal::kOpenLength:
      say("attention: mask.open_lengths", "for sample");
      break;
    case Refusal::kPosition:
      say("write_tokens: positions", "at row");
      break;
    case Refusal::kRow:
      say("select_rows: rows", "at row");
      break;
    case Refusal::kRowLength:
      say("select_rows: lengths", "at row");
      break;
    case Refusal::kEpoch:  // its lower half
      fail(ErrorKind::kInvalidArgument, "dropout: epoch must fit 32 bits; got ", value, " in the lower ones");
  }
  fail(ErrorKind::kInternal, "cuda: a kernel refused its data for a reason that is not known");
}

#ifdef PERMAFROST_CUDA_ARCHITECTURES
/// "90-real;100-real": whether there is code for a device. Code for x.y runs on x.z with z >= y, and all "-virtual" or
/// bare ones bring PTX for what comes later.
bool has_code_for(int major, int minor) {
  std::istringstream list(PERMAFROST_CUDA_ARCHITECTURES);
  for (std::string architecture; std::getline(list, architecture, ',');) {
    const int number = std::stoi(architecture);
    const bool later = architecture.find("-real") == std::string::npos;
    if (number / 10 == major && number % 10 <= minor) return true;
    if (later && number <= 10 * major + minor) return true;
  }
  return false;
}
#endif

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
          .shared_bytes = narrow<int64_t>(properties.sharedMemPerBlockOptin),
          .uuid = uuid_text(properties.uuid),
          .pci = pci_text(properties)};
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
  const cudaError_t error = cudaMalloc(&memory, narrow<size_t>(bytes));
  if (error != cudaErrorMemoryAllocation) {
    check(error, "cudaMalloc");
  } else {
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
#ifdef PERMAFROST_CUDA_ARCHITECTURES
  if (!has_code_for(info.major, info.minor))
    fail(ErrorKind::kNotBuilt, "device: cuda:", device, " (", info.name, ") has compute capability ", info.major, ".",
         info.minor, "; this build has code for ", PERMAFROST_CUDA_ARCHITECTURES,
         ": configure with -D PERMAFROST_CUDA_ARCHITECTURES=", info.major, info.minor, "-real");
#endif
  auto queue = std::make_unique<Queue>();
  queue->device = device;
  queue->processors = info.processors;
  queue->shared_bytes = info.shared_bytes;
  queue->refused = reinterpret_cast<unsigned long long*>(allocate_pinned("refusals of a stream", 8, device));
  *queue->refused = kNothing;
  const cudaError_t error = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) release_pinned(reinterpret_cast<std::byte*>(queue->refused));
  check(error, "cudaStreamCreateWithFlags");
  return queue.release();
}

void destroy_queue(Queue* queue) noexcept {
  if (!queue) return;
  cudaSetDevice(queue->device);
  cudaStreamSynchronize(queue->stream);
  if (queue->destroy_matmul) queue->destroy_matmul(queue->matmul);
  if (queue->destroy_attention) queue->destroy_attention(queue->attention);
  cudaStreamDestroy(queue->stream);
  release_pinned(reinterpret_cast<std::byte*>(queue->refused));
  delete queue;
}

void* native_stream(const Queue& queue) { return queue.stream; }

Refuser refuser(const Context& context, Refusal what, int64_t largest) {
  Queue& queue = queue_of(context);
  const Rule rule{what, largest};
  const auto known = std::ranges::find(queue.rules, rule);
  const auto index = static_cast<size_t>(known - queue.rules.begin());
  constexpr size_t kMostRules = (size_t{1} << 10) - 1;  // all ones in every bit means nothing
  PERMAFROST_CHECK(index < kMostRules, "cuda: kernels of a stream must have fewer than ", kMostRules,
                   " bounds for their data; got one more");
  if (known == queue.rules.end()) queue.rules.push_back(rule);
  return {queue.refused, static_cast<uint32_t>(index)};
}

void synchronize(Queue& queue) {
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaStreamSynchronize(queue.stream));
  const unsigned long long word = std::exchange(*queue.refused, kNothing);
  if (word == kNothing) return;
  throw_refusal(queue.rules.at(word >> 54), static_cast<int64_t>(word >> 32 & 0x3fffff),
                static_cast<int32_t>(static_cast<uint32_t>(word)));
}

void copy(Queue& queue, void* to, const void* from, int64_t bytes) {
  if (bytes <= 0) return;
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaMemcpyAsync(to, from, narrow<size_t>(bytes), cudaMemcpyDefault, queue.stream));
}

void fill(Queue& queue, void* to, int byte, int64_t bytes) {
  if (bytes <= 0) return;
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaMemsetAsync(to, byte, narrow<size_t>(bytes), queue.stream));
}

void allow_tf32(Queue& queue, bool allowed) { queue.tf32 = allowed; }
void use_cudnn(Queue& queue, CudnnUse use) { queue.cudnn = use; }
int64_t cudnn_calls(const Queue& queue) { return queue.cudnn_calls; }
void on_note(Queue& queue, std::function<void(const std::string&)> note) { queue.note = std::move(note); }

struct Mark {
  cudaEvent_t event = nullptr;
};

namespace {
Mark* create_mark_with(Queue& queue, unsigned flags) {
  auto mark = std::make_unique<Mark>();
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaEventCreateWithFlags(&mark->event, flags));
  const cudaError_t error = cudaEventRecord(mark->event, queue.stream);
  if (error != cudaSuccess) cudaEventDestroy(mark->event);
  check(error, "cudaEventRecord");
  return mark.release();
}
}  // namespace

Mark* create_mark(Queue& queue) { return create_mark_with(queue, cudaEventDisableTiming); }
Mark* create_timed_mark(Queue& queue) { return create_mark_with(queue, cudaEventDefault); }

void destroy_mark(Mark* mark) noexcept {
  if (!mark) return;
  cudaEventDestroy(mark->event);
  delete mark;
}

void record(Mark& mark, Queue& queue) {
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaEventRecord(mark.event, queue.stream));
}

void wait_in_queue(const Mark& mark, Queue& queue) {
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaStreamWaitEvent(queue.stream, mark.event, 0));
}

void pin(std::string_view name, std::byte* memory, int64_t bytes, int device) {
  use(device);
  const cudaError_t error = cudaHostRegister(memory, narrow<size_t>(bytes), cudaHostRegisterDefault);
  if (error == cudaSuccess) return;
  cudaGetLastError();
  fail(ErrorKind::kStorage, "Buffer ", name, ": the system must pin ", bytes, " bytes of host memory; CUDA says ",
       cudaGetErrorString(error));
}

void unpin(std::byte* memory) noexcept {
  if (memory && cudaHostUnregister(memory) != cudaSuccess) cudaGetLastError();
}

struct CapturedWork {
  cudaGraphExec_t graph = nullptr;
};

void begin_capture(Queue& queue) {
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaStreamBeginCapture(queue.stream, cudaStreamCaptureModeThreadLocal));
}

CapturedWork* end_capture(Queue& queue) {
  cudaGraph_t graph = nullptr;
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaStreamEndCapture(queue.stream, &graph));
  OwnedCapture work(new CapturedWork);
  const cudaError_t error = cudaGraphInstantiate(&work->graph, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "cudaGraphInstantiate");
  PERMAFROST_CUDA(cudaGraphUpload(work->graph, queue.stream));  // or its first launch would take the memory
  return work.release();
}

void launch(Queue& queue, const CapturedWork& work) {
  PERMAFROST_CUDA(cudaSetDevice(queue.device));
  PERMAFROST_CUDA(cudaGraphLaunch(work.graph, queue.stream));
}

void destroy_captured(CapturedWork* work) noexcept {
  if (!work) return;
  if (work->graph) cudaGraphExecDestroy(work->graph);
  delete work;
}

bool reached(const Mark& mark) {
  const cudaError_t error = cudaEventQuery(mark.event);
  if (error == cudaErrorNotReady) return false;
  check(error, "cudaEventQuery");
  return true;
}

void wait(const Mark& mark) { PERMAFROST_CUDA(cudaEventSynchronize(mark.event)); }

double milliseconds_between(const Mark& begin, const Mark& end) {
  float milliseconds = 0;
  PERMAFROST_CUDA(cudaEventElapsedTime(&milliseconds, begin.event, end.event));
  return static_cast<double>(milliseconds);
}

#ifdef PERMAFROST_HAS_NVTX
void push_range(const char* name) noexcept { nvtxRangePushA(name); }
void pop_range() noexcept { nvtxRangePop(); }
#else
void push_range(const char*) noexcept {}
void pop_range() noexcept {}
#endif

}  // namespace permafrost::cuda
