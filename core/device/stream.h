#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "core/device/device.h"

namespace permafrost {

namespace cuda {
struct Queue;
}

/// Completion of asynchronous work. Copyable; all copies see the same completion. A default event is complete.
class Event {
 public:
  Event() = default;
  bool done() const;
  /// Blocks until complete; rethrows the error of the work, if it failed.
  void wait() const;

 private:
  friend class Stream;
  struct State;
  std::shared_ptr<State> state_;
};

/// An ordered queue of work. On CPU: one thread that runs tasks in order. On CUDA: a stream of the device; kernels that
/// are given it return at once.
class Stream {
 public:
  /// Errors: kNotBuilt for a CUDA device in a build without CUDA, kInvalidArgument where it is not there.
  explicit Stream(Device device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }
  /// Appends a task; the event completes when it has run. An exception of the task is kept in its event.
  /// On CUDA the task runs at once on the calling thread, where it may throw, and what it gave to the device is what
  /// the event waits for.
  /// check: throws the error of work that a device cannot throw itself (a collective that was given up). On CUDA
  /// Event::wait calls it when the device has got there; on CPU it runs behind the task.
  Event submit(std::function<void()> task, std::function<void()> check = {});
  /// Waits for everything submitted so far. On CUDA it then throws kInvalidArgument when a kernel refused its data (an
  /// id out of range), which no kernel can do by itself there.
  void synchronize();
  /// What kernels need of a CUDA stream; null on CPU.
  cuda::Queue* queue() const { return queue_; }

 private:
  void work();
  struct Item;
  Device device_;
  cuda::Queue* queue_ = nullptr;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Item> items_;
  bool stopping_ = false;
  std::thread thread_;
};

/// Non-owning: where to put work. `StreamView::caller()` runs it at once on the calling thread, and the event
/// returned is already complete; that is the ordinary case on CPU.
class StreamView {
 public:
  StreamView(Stream& stream) : stream_(&stream) {}  // NOLINT: a view is meant to convert
  static StreamView caller() { return StreamView(); }
  StreamView(std::nullptr_t) = delete;
  /// Nobody's stream: see caller().
  bool is_caller() const { return stream_ == nullptr; }
  Stream* stream() const { return stream_; }  ///< null for the caller
  /// CPU for the caller.
  Device device() const { return stream_ ? stream_->device() : Device::cpu(); }
  /// Of the stream, if it is one of CUDA; else null.
  cuda::Queue* queue() const { return stream_ ? stream_->queue() : nullptr; }

  /// Errors of work run on the calling thread are thrown here; errors of queued work by Event::wait. Work run on the
  /// calling thread is called directly, so nothing is allocated for it.
  template <typename Task>
  Event submit(Task&& task) const {
    if (stream_) return stream_->submit(std::function<void()>(std::forward<Task>(task)));
    std::forward<Task>(task)();
    return Event();
  }

 private:
  StreamView() = default;
  Stream* stream_ = nullptr;
};

}  // namespace permafrost
