#include "core/device/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/device/cuda.h"

namespace permafrost {

Buffer::Buffer(std::string name, int64_t bytes, Device device)
    : name_(std::move(name)), device_(device), bytes_(bytes) {
  PERMAFROST_CHECK(bytes >= 0, "Buffer ", name_, ": bytes must not be negative; got ", bytes);
  if (bytes == 0) return;
  if (device.kind == DeviceKind::kCpu) {
    map();
  } else {
    kind_ = Kind::kDevice;
    data_ = cuda::allocate(name_, bytes, device.index);
  }
}

Buffer Buffer::pinned(std::string name, int64_t bytes, Device device) {
  if (device.kind == DeviceKind::kCpu) return {std::move(name), bytes, device};
  Buffer buffer(std::move(name), 0, device);
  PERMAFROST_CHECK(bytes >= 0, "Buffer ", buffer.name_, ": bytes must not be negative; got ", bytes);
  if (bytes > 0) buffer.data_ = cuda::allocate_pinned(buffer.name_, bytes, device.index);
  buffer.kind_ = Kind::kPinned;
  buffer.bytes_ = bytes;
  return buffer;
}

Buffer Buffer::adopt(std::string name, std::byte* data, int64_t bytes, Device device, Release release) {
  Buffer buffer(std::move(name), 0, device);
  buffer.kind_ = Kind::kAdopted;
  buffer.data_ = data;
  buffer.bytes_ = bytes;
  buffer.adopted_release_ = release;
  return buffer;
}

void Buffer::map() {
  const int64_t bytes = bytes_;
  constexpr int64_t kHuge = int64_t{2} << 20;
  PERMAFROST_CHECK(bytes <= INT64_MAX - 2 * kHuge, "Buffer ", name_, ": bytes must leave room for alignment; got ",
                   bytes);
  const bool huge = bytes >= kHuge;
  mapping_bytes_ = narrow<size_t>(huge ? round_up(bytes, kHuge) + kHuge : round_up(bytes, 4096));
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    fail(ErrorKind::kStorage, "Buffer ", name_, ": cannot map ", bytes, " bytes of memory: ", std::strerror(errno));
  }
  data_ = static_cast<std::byte*>(mapping_);
  if (huge) {
    const auto address = reinterpret_cast<uintptr_t>(data_);
    data_ = reinterpret_cast<std::byte*>((address + kHuge - 1) / kHuge * kHuge);
    // Advice only: without it everything still works, a little slower.
    madvise(data_, narrow<size_t>(round_up(bytes, kHuge)), MADV_HUGEPAGE);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : name_(std::move(other.name_)),
      kind_(other.kind_),
      device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapping_bytes_(std::exchange(other.mapping_bytes_, 0)),
      adopted_release_(std::exchange(other.adopted_release_, nullptr)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    name_ = std::move(other.name_);
    kind_ = other.kind_;
    device_ = other.device_;
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    mapping_ = std::exchange(other.mapping_, nullptr);
    mapping_bytes_ = std::exchange(other.mapping_bytes_, 0);
    adopted_release_ = std::exchange(other.adopted_release_, nullptr);
  }
  return *this;
}

Buffer::~Buffer() { release(); }

void Buffer::release() noexcept {
  if (mapping_) munmap(mapping_, mapping_bytes_);
  if (data_ && kind_ == Kind::kDevice) cuda::release(data_, device_.index);
  if (data_ && kind_ == Kind::kPinned) cuda::release_pinned(data_);
  if (data_ && kind_ == Kind::kAdopted) adopted_release_(data_);
  mapping_ = nullptr;
  data_ = nullptr;
}

}  // namespace permafrost
