#include "core/device/stream.h"

#include <exception>

#include "core/base/check.h"

namespace permafrost {

struct Event::State {
  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;
  std::exception_ptr error;
};

struct Stream::Item {
  std::function<void()> task;
  std::shared_ptr<Event::State> state;
};

bool Event::done() const {
  if (!state_) return true;
  const std::lock_guard lock(state_->mutex);
  return state_->done;
}

void Event::wait() const {
  if (!state_) return;
  std::unique_lock lock(state_->mutex);
  state_->finished.wait(lock, [this] { return state_->done; });
  if (state_->error) std::rethrow_exception(state_->error);
}

Stream::Stream(Device device) : device_(device) {
  if (device.kind != DeviceKind::kCpu)
    fail(ErrorKind::kNotBuilt, "Stream: only CPU streams are built; configure with a CUDA preset");
  thread_ = std::thread([this] { work(); });
}

Stream::~Stream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_one();
  thread_.join();
}

Event Stream::submit(std::function<void()> task) {
  Event event;
  event.state_ = std::make_shared<Event::State>();
  {
    const std::lock_guard lock(mutex_);
    items_.push_back({std::move(task), event.state_});
  }
  ready_.notify_one();
  return event;
}

void Stream::work() {
  while (true) {
    Item item;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return stopping_ || !items_.empty(); });
      if (items_.empty()) return;  // stopping, and everything submitted has run
      item = std::move(items_.front());
      items_.pop_front();
    }
    std::exception_ptr error;
    try {
      item.task();
    } catch (...) {
      error = std::current_exception();
    }
    item.task = nullptr;  // what the task holds is free before anyone learns that it is done
    const std::lock_guard lock(item.state->mutex);
    item.state->done = true;
    item.state->error = error;
    item.state->finished.notify_all();
  }
}

}  // namespace permafrost
