#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/device/device.h"

namespace permafrost {

/// Owns one piece of device memory, zero-filled on first touch, aligned to a page (to 2 MiB from 2 MiB up, with huge
/// pages asked for). Move-only. Every allocation has a name, which appears in the error when memory runs out.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::string name, int64_t bytes, Device device = Device::cpu());
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

 private:
  void release() noexcept;
  std::string name_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

}  // namespace permafrost
