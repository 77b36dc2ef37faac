// The calls of CUDA's runtime: memory is the host's, streams are always idle.
#include <sys/mman.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "tests/cuda_emulation/cuda_runtime.h"

namespace {
constexpr size_t kTotal = size_t{4} << 30, kPage = 4096;
std::mutex mutex;
std::map<void*, size_t> device_memory, pinned_memory;  // sizes as mapped
std::map<void*, size_t> registered;                    // host memory
constexpr size_t kGraphBytes = 65536;                  // of device memory that a graph takes to be launched
size_t allocated = 0;                                  // of device memory
// Pinned memory that was released, by size and out of reach: new pages cost more than all that most tests do with them.
std::multimap<size_t, void*> spare;
constexpr size_t kLeastSpare = size_t{64} << 10, kMostSpare = size_t{128} << 20;  // of a piece, of all
size_t spare_bytes = 0;
int users = 0;  // of device memory
cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t error) { return error == cudaSuccess ? error : last_error = error; }

/// Keys of memory switch what the calling thread may touch at no cost; -1 where the processor or the system has none:
/// then pages are switched, for all threads. A thread begins without access.
int device_key() {
  static const int key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
  return key;
}
thread_local int accesses = 0;  // DeviceAccess objects of this thread

void put_out_of_reach(void* place, size_t mapped) {
  if (device_key() >= 0)
    pkey_mprotect(place, mapped, PROT_READ | PROT_WRITE, device_key());
  else if (users == 0)
    mprotect(place, mapped, PROT_NONE);
}

void* map_new(size_t mapped) {
  void* place = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place != MAP_FAILED) madvise(place, mapped, MADV_HUGEPAGE);  // fewer faults, where the system has such pages
  return place;
}

void* map_pinned(size_t mapped) {
  if (const auto found = spare.find(mapped); found != spare.end()) {
    void* place = found->second;
    spare.erase(found);
    spare_bytes -= mapped;
    return mprotect(place, mapped, PROT_READ | PROT_WRITE) == 0 ? place : MAP_FAILED;
  }
  return map_new(mapped);
}

void unmap_pinned(void* place, size_t mapped) {
  if (mapped < kLeastSpare || spare_bytes + mapped > kMostSpare || mprotect(place, mapped, PROT_NONE) != 0) {
    munmap(place, mapped);
    return;
  }
  spare.emplace(mapped, place);
  spare_bytes += mapped;
}

cudaError_t allocate(void** pointer, size_t bytes, std::map<void*, size_t>& memory) {
  const std::lock_guard lock(mutex);
  const size_t mapped = (bytes + kPage) / kPage * kPage;
  const bool on_device = &memory == &device_memory;
  if (on_device && (bytes > kTotal || mapped > kTotal - allocated)) return result(cudaErrorMemoryAllocation);
  void* place = on_device ? map_new(mapped) : map_pinned(mapped);
  if (place == MAP_FAILED) return result(cudaErrorMemoryAllocation);
  std::memset(place, 0xff, mapped);  // as little zero as on a device
  if (on_device) put_out_of_reach(place, mapped);
  memory[place] = mapped;
  allocated += on_device ? mapped : 0;
  *pointer = place;
  return cudaSuccess;
}

cudaError_t release(void* pointer, std::map<void*, size_t>& memory) {
  const std::lock_guard lock(mutex);
  if (!pointer) return cudaSuccess;
  const auto found = memory.find(pointer);
  if (found == memory.end()) return result(cudaErrorInvalidValue);
  allocated -= &memory == &device_memory ? found->second : 0;
  if (&memory == &device_memory)
    munmap(pointer, found->second);
  else
    unmap_pinned(pointer, found->second);
  memory.erase(found);
  return cudaSuccess;
}

/// Of device memory where there is no key.
void allow(int protection) {
  for (const auto& [place, mapped] : device_memory) mprotect(place, mapped, protection);
}
}  // namespace

cuda_emulation::DeviceAccess::DeviceAccess() {
  if (device_key() >= 0) {
    if (accesses++ == 0) pkey_set(device_key(), 0);
    return;
  }
  const std::lock_guard lock(mutex);
  if (users++ == 0) allow(PROT_READ | PROT_WRITE);
}

cuda_emulation::DeviceAccess::~DeviceAccess() {
  if (device_key() >= 0) {
    if (--accesses == 0) pkey_set(device_key(), PKEY_DISABLE_ACCESS);
    return;
  }
  const std::lock_guard lock(mutex);
  if (--users == 0) allow(PROT_NONE);
}

std::atomic<double> cuda_emulation::clock = 0;
std::atomic<bool> cuda_emulation::a_gpu_for_each_thread = false;
std::atomic<size_t> cuda_emulation::capture_room = SIZE_MAX;

class cuda_emulation::Hold {
 public:
  std::mutex mutex;
  std::condition_variable changed;
  bool released = false;
};

// What is being captured: work in the order in which it was given, which keeps every order that streams and events
// ask for.
struct CUgraph_st {
  std::vector<std::function<void()>> work;
  CUstream_st* origin = nullptr;
  std::set<CUstream_st*> joined;  // by waiting for an event of the capture
  bool invalid = false;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
  bool uploaded = false;
};
struct CUstream_st {
  std::mutex mutex;
  std::shared_ptr<cuda_emulation::Hold> last;
  CUgraph_st* capture = nullptr;
  int64_t given = 0;    // of this capture
  int64_t awaited = 0;  // of that, what the origin waited for
};
struct CUevent_st {
  bool timed = false;
  double time = 0;
  CUgraph_st* capture = nullptr;
  CUstream_st* stream = nullptr;
  int64_t given = 0;                                       // to the stream, before this
  std::shared_ptr<cuda_emulation::Hold> behind = nullptr;  // null: nothing to wait for
};

namespace {
thread_local CUgraph_st* captured_by_this_thread = nullptr;

/// For what a capture does not allow; CUDA makes it invalid.
cudaError_t refused_in_capture(CUgraph_st* capture, cudaError_t error) {
  capture->invalid = true;
  return result(error);
}

void wait_for_hold(cuda_emulation::Hold* hold) {
  if (!hold) return;
  std::unique_lock lock(hold->mutex);
  hold->changed.wait(lock, [&] { return hold->released; });
}
}  // namespace

std::shared_ptr<cuda_emulation::Hold> cuda_emulation::hold(cudaStream_t stream) {
  const std::lock_guard lock(stream->mutex);
  return stream->last = std::make_shared<Hold>();
}

std::shared_ptr<cuda_emulation::Hold> cuda_emulation::last_hold(cudaStream_t stream) {
  if (!stream) return nullptr;
  const std::lock_guard lock(stream->mutex);
  return stream->last;
}

void cuda_emulation::release(Hold& hold) {
  const std::lock_guard lock(hold.mutex);
  hold.released = true;
  hold.changed.notify_all();
}

bool cuda_emulation::released(const Hold& hold) {
  auto& seen = const_cast<Hold&>(hold);
  const std::lock_guard lock(seen.mutex);
  return seen.released;
}

void cuda_emulation::wait_for(cudaStream_t stream) { wait_for_hold(last_hold(stream).get()); }

cudaError_t cuda_emulation::submit(cudaStream_t stream, std::function<void()> work) {
  if (!stream || !stream->capture) {
    wait_for(stream);
    work();
    constexpr double kMillisecondsOfWork = 1e-6;
    clock += kMillisecondsOfWork;
    return cudaSuccess;
  }
  CUgraph_st& capture = *stream->capture;
  if (capture.work.size() >= capture_room) capture.invalid = true;
  if (capture.invalid) return result(cudaErrorStreamCaptureInvalidated);
  ++stream->given;
  capture.work.push_back(std::move(work));
  return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorHostMemoryAlreadyRegistered:
      return "cudaErrorHostMemoryAlreadyRegistered";
    case cudaErrorHostMemoryNotRegistered:
      return "cudaErrorHostMemoryNotRegistered";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
  }
  return "unknown";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return result(cudaErrorInvalidDevice);
  *properties = {"emulated", 9, 0, 4, kTotal, size_t{227} << 10, {{0x5d, 0x4c}}, 0, 0x3b, 0};
  if (cuda_emulation::a_gpu_for_each_thread) {
    static std::atomic<int> threads = 0;
    thread_local const int number = ++threads;
    std::memcpy(properties->uuid.bytes + 2, &number, sizeof number);
    properties->pciDeviceID = number;
  }
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const std::lock_guard lock(mutex);
  *free_bytes = kTotal - allocated;
  *total_bytes = kTotal;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (captured_by_this_thread) return refused_in_capture(captured_by_this_thread, cudaErrorStreamCaptureUnsupported);
  return allocate(pointer, bytes, device_memory);
}
cudaError_t cudaFree(void* pointer) { return release(pointer, device_memory); }
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return allocate(pointer, bytes, pinned_memory); }
cudaError_t cudaFreeHost(void* pointer) { return release(pointer, pinned_memory); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return cuda_emulation::submit(stream, [=] {
    const cuda_emulation::DeviceAccess access;
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return cuda_emulation::submit(stream, [=] {
    const cuda_emulation::DeviceAccess access;
    if (bytes > 0) std::memset(to, value, bytes);
  });
}
cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned) {
  const std::lock_guard lock(mutex);
  return registered.emplace(memory, bytes).second ? cudaSuccess : result(cudaErrorHostMemoryAlreadyRegistered);
}
cudaError_t cudaHostUnregister(void* memory) {
  const std::lock_guard lock(mutex);
  return registered.erase(memory) == 1 ? cudaSuccess : result(cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = new CUstream_st, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream && stream->capture) return refused_in_capture(stream->capture, cudaErrorStreamCaptureUnsupported);
  return cuda_emulation::wait_for(stream), cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!event->capture) {
    if (stream && stream->capture) return refused_in_capture(stream->capture, cudaErrorStreamCaptureIsolation);
    // As a stream has one hold only, the host waits for one of the two.
    cuda_emulation::wait_for(stream);
    if (!stream) return wait_for_hold(event->behind.get()), cudaSuccess;
    const std::lock_guard lock(stream->mutex);
    if (event->behind) stream->last = event->behind;
    return cudaSuccess;
  }
  if (!stream->capture) {
    stream->capture = event->capture;
    stream->given = stream->awaited = 0;
    stream->capture->joined.insert(stream);
  }
  if (stream == stream->capture->origin)
    event->stream->awaited = event->given > event->stream->awaited ? event->given : event->stream->awaited;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->capture) return result(cudaErrorStreamCaptureUnsupported);
  stream->capture = captured_by_this_thread = new CUgraph_st{.work = {}, .origin = stream, .joined = {}};
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream->capture || stream->capture->origin != stream) return result(cudaErrorInvalidValue);
  CUgraph_st* capture = std::exchange(stream->capture, nullptr);
  captured_by_this_thread = nullptr;
  bool joined = true;
  for (CUstream_st* other : capture->joined) {
    joined = joined && other->awaited == other->given;
    other->capture = nullptr;
  }
  if (capture->invalid || !joined) {
    const cudaError_t error = capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnjoined;
    delete capture;
    return result(error);
  }
  return *graph = capture, cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new CUgraphExec_st{graph->work}, cudaSuccess;
}
/// Where memory is taken: at the first launch, if it was not done before.
cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t) {
  if (std::exchange(graph->uploaded, true)) return cudaSuccess;
  const std::lock_guard lock(mutex);
  allocated += kGraphBytes;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  cudaGraphUpload(graph, stream);
  for (const auto& work : graph->work) cuda_emulation::submit(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  const bool uploaded = graph->uploaded;
  delete graph;
  const std::lock_guard lock(mutex);
  allocated -= uploaded ? kGraphBytes : 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st{.timed = (flags & cudaEventDisableTiming) == 0};
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream && stream->capture && stream->capture->invalid) return result(cudaErrorStreamCaptureInvalidated);
  event->behind = cuda_emulation::last_hold(stream);
  event->time = cuda_emulation::clock;
  event->capture = stream ? stream->capture : nullptr;
  event->stream = stream;
  event->given = stream ? stream->given : 0;
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (!begin->timed || !end->timed) return result(cudaErrorInvalidValue);
  *milliseconds = static_cast<float>(end->time - begin->time);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream && stream->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->capture) return result(cudaErrorStreamCaptureUnsupported);
  return event->behind && !cuda_emulation::released(*event->behind) ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->capture) return result(cudaErrorStreamCaptureUnsupported);
  return wait_for_hold(event->behind.get()), cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  thread_local cudaStreamCaptureMode own = cudaStreamCaptureModeGlobal;
  return std::swap(own, *mode), cudaSuccess;
}
