#include "launch/training/device_group.h"

#include "parallel/group/host_staged_group.h"

namespace permafrost {

DeviceMemory::DeviceMemory(std::string name, int64_t bytes, NodeGroup& node, Device device) : bytes_(bytes) {
  if (device.kind == DeviceKind::kCuda)
    device_ = Buffer(std::move(name), bytes, device);
  else
    shared_.emplace(std::move(name), bytes, &node);
}

DeviceGroup::DeviceGroup(Runtime& runtime, int64_t largest_bytes) : world_(runtime.world) {
  const Device device = runtime.device();
  if (device.kind == DeviceKind::kCpu) return;
  if (runtime.size() > 1 && largest_bytes > 0) {
    staging_.emplace("staging of exchanges", largest_bytes, &runtime.node);
    pinned_ = PinnedMemory("staging of exchanges", staging_->data(), staging_->bytes(), device);
  }
  over_host_ = make_host_staged_group(
      world_, device, {staging_ ? staging_->data() : nullptr, DType::kU8, Shape{std::ssize(staging())}});
}

std::string DeviceGroup::str() const {
  if (!over_host_ || world_.size() == 1) return "";
  return "device: exchanges between ranks go through host memory";
}

}  // namespace permafrost
