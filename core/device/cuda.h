#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

// NVIDIA GPUs behind plain C++: the rest of the project never sees CUDA's own headers. cuda.cu in a build with CUDA,
// no_cuda.cc in one without.
namespace permafrost::cuda {

/// True in a build with the CUDA backend, whether or not this machine has a GPU.
bool built();

/// Devices that can be used; 0 in a build without CUDA, without a driver and without a GPU. Never throws.
int device_count();

/// Why device_count() is 0, in one sentence that says what to do; "" when it is not.
std::string why_unavailable();

struct DeviceInfo {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int processors = 0;        ///< streaming multiprocessors
  int64_t memory_bytes = 0, free_bytes = 0;
  int64_t shared_bytes = 0;  ///< shared memory that one block may have
  std::string uuid;          ///< "GPU-5d4cc4a1-...": of this GPU alone, on any machine
  std::string pci;           ///< "0000:3b:00": domain, bus and device, of this machine
};
/// Errors (this one and all below): kNotBuilt in a build without CUDA; kInvalidArgument for a device that is not there;
/// kInternal, naming the call and CUDA's own words, for everything the driver reports.
DeviceInfo device_info(int device);

/// CUDA versions as "13.0": of the driver (what it can run at most) and of the runtime this build uses.
std::string driver_version();
std::string runtime_version();

/// Device memory, zero-filled, aligned to 256 bytes. Errors: kStorage when the device has not enough, saying what it
/// has and how much of that is free.
std::byte* allocate(std::string_view name, int64_t bytes, int device);
void release(std::byte* memory, int device) noexcept;

/// Host memory that the device reads and writes in place and copies to and from fastest. Zero-filled.
std::byte* allocate_pinned(std::string_view name, int64_t bytes, int device);
void release_pinned(std::byte* memory) noexcept;

/// What kernels need of a stream of a device: see cuda_launch.h. Made and owned by Stream.
struct Queue;
Queue* create_queue(int device);
void destroy_queue(Queue* queue) noexcept;
/// The cudaStream_t, for libraries that take one.
void* native_stream(const Queue& queue);
/// Waits for everything submitted so far. Errors: kInvalidArgument for data that a kernel refused (an id out of range),
/// in the words of the same kernel on CPU; the queue is fit for use afterwards.
void synchronize(Queue& queue);
/// Copies between any two places that the device can reach, in the order of the queue.
void copy(Queue& queue, void* to, const void* from, int64_t bytes);
/// Every byte set to `byte`, in the order of the queue.
void fill(Queue& queue, void* to, int byte, int64_t bytes);
/// Whether products of f32 matrices may round their operands to TF32 (11 bits instead of 24, several times as fast).
/// At first they may not.
void allow_tf32(Queue& queue, bool allowed);
/// When attention runs in cuDNN, where there is one, whose bits are others than those of the project's own kernels.
enum class CudnnUse : uint8_t {
  kNever,
  kWherePays,  ///< not for tokens that one tile of the own kernels holds, all in one kernel; so it is at first
  kAlways,     ///< wherever it can
};
void use_cudnn(Queue& queue, CudnnUse use);
/// Calls of attention that went to cuDNN so far.
int64_t cudnn_calls(const Queue& queue);
/// What to do with what kernels have to say once, at the first call of a kind: that a library refuses what is usually
/// left to it. At first nothing.
void on_note(Queue& queue, std::function<void(const std::string&)> note);

struct Mark;  ///< a place in a queue
Mark* create_mark(Queue& queue);
void destroy_mark(Mark* mark) noexcept;
/// Moves it to where the queue is now.
void record(Mark& mark, Queue& queue);
bool reached(const Mark& mark);
void wait(const Mark& mark);                         ///< on the host
void wait_in_queue(const Mark& mark, Queue& queue);  ///< what comes later in `queue` waits; the host does not

struct DestroyMark {
  void operator()(Mark* mark) const noexcept { destroy_mark(mark); }
};
using OwnedMark = std::unique_ptr<Mark, DestroyMark>;

/// Makes ordinary memory of the host fit for copies that need no help of the host, until it is released. Errors:
/// kStorage when the system refuses.
void pin(std::string_view name, std::byte* memory, int64_t bytes, int device);
void unpin(std::byte* memory) noexcept;

/// What a queue, and others that wait for it, are given between `begin_capture` and `end_capture` is not done but
/// written down, to be done as a whole as often as wanted: with one call of the host, and with the addresses and
/// numbers of then. Nothing may be waited for or allocated meanwhile; the thread that captures is the one that gives.
struct CapturedWork;
void begin_capture(Queue& queue);
/// What its launches take of the device is taken here. Errors: kInternal when something was given that cannot be
/// captured, or nothing is left for it; the queue is fit for use afterwards.
CapturedWork* end_capture(Queue& queue);
void launch(Queue& queue, const CapturedWork& work);
void destroy_captured(CapturedWork* work) noexcept;

struct DestroyCaptured {
  void operator()(CapturedWork* work) const noexcept { destroy_captured(work); }
};
using OwnedCapture = std::unique_ptr<CapturedWork, DestroyCaptured>;

/// A mark whose time is known.
Mark* create_timed_mark(Queue& queue);
/// On the device's clock, to about half a microsecond. Both are timed and reached.
double milliseconds_between(const Mark& begin, const Mark& end);

/// Ranges of the calling thread that NVIDIA's tools show (NVTX), one within the other. Nothing without such a tool and
/// without CUDA. `name` is read during the call.
void push_range(const char* name) noexcept;
void pop_range() noexcept;

}  // namespace permafrost::cuda
