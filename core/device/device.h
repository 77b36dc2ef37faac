#pragma once
#include <cstdint>

namespace permafrost {

enum class DeviceKind : uint8_t { kCpu, kCuda };

/// Where memory lives and work runs. A small comparable value.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  static constexpr Device cpu() { return {}; }
  static constexpr Device cuda(int index) { return {DeviceKind::kCuda, index}; }
  friend bool operator==(const Device&, const Device&) = default;
};

}  // namespace permafrost
