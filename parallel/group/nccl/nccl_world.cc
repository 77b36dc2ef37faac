#include "parallel/group/nccl/nccl_world.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <utility>

#include "parallel/group/failure.h"
#include "parallel/group/nccl/nccl_communicator.h"

namespace permafrost {

namespace {
constexpr auto kLookEvery = std::chrono::milliseconds(2);
}  // namespace

NcclWorld::NcclWorld(Group& host, const NcclOptions& world_options, Device world_device)
    : options(world_options), device(world_device), host_(host) {
  if (host.size() > 1) thread_ = std::thread([this] { watch(); });
}

NcclWorld::~NcclWorld() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();  // it waits for nothing without a limit
}

void NcclWorld::add(std::shared_ptr<NcclCommunicator> communicator) {
  const std::lock_guard lock(mutex_);
  communicators_.push_back(std::move(communicator));
}

void NcclWorld::remove(const NcclCommunicator& communicator) {
  const std::lock_guard lock(mutex_);
  std::erase_if(communicators_, [&](const auto& known) { return known.get() == &communicator; });
}

std::optional<Error> NcclWorld::failure() const {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return failure_;
  }
  std::optional<Error> peers = host_.async_error();
  if (!peers) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = std::move(peers);
  return failure_;
}

Error NcclWorld::fail_with(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = error;
  changed_.notify_all();
  return *failure_;
}

void NcclWorld::abort(const Error& reason) noexcept {
  try {
    fail_with(Failure{host_.rank(), host_.size(), reason.kind(), reason.what()}.error());
  } catch (...) {  // out of memory for the words: the host group still ends the world
  }
  host_.abort(reason);
}

void NcclWorld::watch() {
  cudaSetDevice(device.index);
  // A stream may be captured meanwhile, in a mode that forbids other threads to ask for events.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  cudaThreadExchangeStreamCaptureMode(&mode);
  std::vector<std::shared_ptr<NcclCommunicator>> present;
  while (true) {
    present.clear();
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kLookEvery, [&] { return stopping_; });
      if (stopping_) return;
      present = communicators_;
    }
    bool failed = failure().has_value();
    for (const auto& communicator : present) {
      if (failed) break;
      if (const auto error = communicator->look()) {
        fail_with(*error);
        failed = true;
      }
    }
    if (!failed) continue;
    for (const auto& communicator : present) communicator->abort();  // a second time does nothing
  }
}

}  // namespace permafrost
