#include "parallel/group/nccl/bounded.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace permafrost {

bool run_bounded(std::chrono::milliseconds limit, std::function<void()> task) {
  struct State {
    std::mutex mutex;
    std::condition_variable ended;
    bool done = false;
  };
  const auto state = std::make_shared<State>();
  std::thread([state, task = std::move(task)] {
    task();
    const std::lock_guard lock(state->mutex);
    state->done = true;
    state->ended.notify_all();
  }).detach();
  std::unique_lock lock(state->mutex);
  return state->ended.wait_for(lock, limit, [&] { return state->done; });
}

}  // namespace permafrost
