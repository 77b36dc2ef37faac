#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/device/device.h"

namespace permafrost {

/// Owns one piece of memory, zero-filled. Move-only. Every allocation has a name, which appears in the error when
/// memory runs out. On CPU: filled on first touch, aligned to a page (to 2 MiB from 2 MiB up, with huge pages asked
/// for). On CUDA: the device's own memory, aligned to 256 bytes.
class Buffer {
 public:
  Buffer() = default;
  /// Errors: kStorage when there is not enough; kNotBuilt for a CUDA device in a build without CUDA.
  Buffer(std::string name, int64_t bytes, Device device = Device::cpu());
  /// Host memory that a CUDA device reads and writes in place, and copies to and from fastest; ordinary memory for a
  /// CPU.
  static Buffer pinned(std::string name, int64_t bytes, Device device);
  /// Memory of `device` that a library allocated, zero-filled by it; `release` gives it back.
  using Release = void (*)(std::byte*) noexcept;
  static Buffer adopt(std::string name, std::byte* data, int64_t bytes, Device device, Release release);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }
  /// Where its tensors live: pinned memory counts as the device's.
  Device device() const { return device_; }

 private:
  enum class Kind : uint8_t { kMapped, kDevice, kPinned, kAdopted };
  void map();
  void release() noexcept;
  std::string name_;
  Kind kind_ = Kind::kMapped;
  Device device_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  Release adopted_release_ = nullptr;
};

}  // namespace permafrost
