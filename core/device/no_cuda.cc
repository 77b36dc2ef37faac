#include "core/base/check.h"
#include "core/device/cuda.h"

// A build without CUDA: nothing is there, and whoever asks for it learns which option brings it.
namespace permafrost::cuda {

namespace {
[[noreturn]] void absent(std::string_view who) {
  fail(ErrorKind::kNotBuilt, who, ": this build has no CUDA backend; configure with the preset cuda");
}
}  // namespace

bool built() { return false; }
int device_count() { return 0; }
std::string why_unavailable() { return "this build has no CUDA backend; configure with the preset cuda"; }
DeviceInfo device_info(int) { absent("device"); }
std::string driver_version() { absent("driver"); }
std::string runtime_version() { absent("runtime"); }
std::byte* allocate(std::string_view name, int64_t, int) { absent(concat("Buffer ", name)); }
void release(std::byte*, int) noexcept {}
std::byte* allocate_pinned(std::string_view name, int64_t, int) { absent(concat("Buffer ", name)); }
void release_pinned(std::byte*) noexcept {}
Queue* create_queue(int) { absent("Stream"); }
void destroy_queue(Queue*) noexcept {}
void* native_stream(const Queue&) { absent("Stream"); }
void synchronize(Queue&) { absent("Stream"); }
void copy(Queue&, void*, const void*, int64_t) { absent("Stream"); }
void fill(Queue&, void*, int, int64_t) { absent("Stream"); }
void allow_tf32(Queue&, bool) { absent("Stream"); }
void use_cudnn(Queue&, CudnnUse) { absent("Stream"); }
int64_t cudnn_calls(const Queue&) { absent("Stream"); }
void on_note(Queue&, std::function<void(const std::string&)>) { absent("Stream"); }
Mark* create_mark(Queue&) { absent("Stream"); }
void destroy_mark(Mark*) noexcept {}
bool reached(const Mark&) { absent("Event"); }
void record(Mark&, Queue&) { absent("Event"); }
void wait(const Mark&) { absent("Event"); }
void wait_in_queue(const Mark&, Queue&) { absent("Event"); }
void pin(std::string_view name, std::byte*, int64_t, int) { absent(concat("Buffer ", name)); }
void unpin(std::byte*) noexcept {}
void begin_capture(Queue&) { absent("Stream"); }
CapturedWork* end_capture(Queue&) { absent("Stream"); }
void launch(Queue&, const CapturedWork&) { absent("Stream"); }
void destroy_captured(CapturedWork*) noexcept {}
Mark* create_timed_mark(Queue&) { absent("Event"); }
double milliseconds_between(const Mark&, const Mark&) { absent("Event"); }
void push_range(const char*) noexcept {}
void pop_range() noexcept {}

}  // namespace permafrost::cuda
