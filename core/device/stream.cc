#include "core/device/stream.h"

#include <exception>

#include "core/device/cuda.h"

namespace permafrost {

struct Event::State {
  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;
  std::exception_ptr error;
  std::unique_ptr<cuda::Mark, void (*)(cuda::Mark*)> mark{nullptr, cuda::destroy_mark};  // of a CUDA stream
  std::function<void()> check;  // of what the mark stands for; may be empty
};

struct Stream::Item {
  std::function<void()> task;
  std::function<void()> check;
  std::shared_ptr<Event::State> state;
};

bool Event::done() const {
  if (!state_) return true;
  if (state_->mark) return cuda::reached(*state_->mark);
  const std::lock_guard lock(state_->mutex);
  return state_->done;
}

void Event::wait() const {
  if (!state_) return;
  if (state_->mark) {
    cuda::wait(*state_->mark);
    if (state_->check) state_->check();
    return;
  }
  std::unique_lock lock(state_->mutex);
  state_->finished.wait(lock, [this] { return state_->done; });
  if (state_->error) std::rethrow_exception(state_->error);
}

Stream::Stream(Device device) : device_(device) {
  if (device.kind == DeviceKind::kCuda)
    queue_ = cuda::create_queue(device.index);
  else
    thread_ = std::thread([this] { work(); });
}

Stream::~Stream() {
  if (queue_) {
    cuda::destroy_queue(queue_);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_one();
  thread_.join();
}

Event Stream::submit(std::function<void()> task, std::function<void()> check) {
  Event event;
  event.state_ = std::make_shared<Event::State>();
  if (queue_) {
    task();
    event.state_->mark.reset(cuda::create_mark(*queue_));
    event.state_->check = std::move(check);
    return event;
  }
  {
    const std::lock_guard lock(mutex_);
    items_.push_back({std::move(task), std::move(check), event.state_});
  }
  ready_.notify_one();
  return event;
}

void Stream::synchronize() {
  if (queue_) return cuda::synchronize(*queue_);
  submit([] {}).wait();
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
      if (item.check) item.check();
    } catch (...) {
      error = std::current_exception();
    }
    item.task = item.check = nullptr;  // what the task holds is free before anyone learns that it is done
    const std::lock_guard lock(item.state->mutex);
    item.state->done = true;
    item.state->error = error;
    item.state->finished.notify_all();
  }
}

}  // namespace permafrost
