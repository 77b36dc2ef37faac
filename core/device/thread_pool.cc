#include "core/device/thread_pool.h"

#include <immintrin.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <utility>

#include "core/base/check.h"

namespace permafrost {

namespace {
/// Marks a job that takes no more threads.
constexpr int kClosed = 1 << 30;

template <typename Ready>
bool spin_until(std::chrono::microseconds spin, Ready ready) {
  const auto end = std::chrono::steady_clock::now() + spin;
  while (!ready()) {
    for (int i = 0; i < 32; ++i) _mm_pause();
    if (std::chrono::steady_clock::now() > end) return ready();
  }
  return true;
}
}  // namespace

struct ThreadPool::Shared {
  Function function = nullptr;
  void* context = nullptr;
  int64_t blocks = 0;
  alignas(64) std::atomic<int64_t> next{0};
  alignas(64) std::atomic<int64_t> generation{0};
  /// Workers on the job, plus kClosed. A worker joins only while the job is open, so nobody waits for one that wakes up
  /// when all is done.
  alignas(64) std::atomic<int> joined{kClosed};
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable started, finished;
  std::exception_ptr error;  // guarded by mutex
};

ThreadPool::ThreadPool(int threads, std::chrono::microseconds spin) : spin_(spin), shared_(std::make_unique<Shared>()) {
  PERMAFROST_CHECK(threads >= 1, "ThreadPool: threads must be at least 1; got ", threads);
  try {
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::system_error& error) {
    stop();  // those already started; the destructor does not run
    fail(ErrorKind::kInternal, "ThreadPool: cannot start ", threads, " threads: ", error.what());
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::work(int thread) {
  Shared& s = *shared_;
  int64_t seen = 0;
  while (true) {
    const auto changed = [&] { return s.generation.load(std::memory_order_acquire) != seen; };
    if (!spin_until(spin_, changed)) {
      std::unique_lock lock(s.mutex);
      s.started.wait(lock, changed);
    }
    seen = s.generation.load(std::memory_order_acquire);
    if (s.stopping.load(std::memory_order_relaxed)) return;
    int joined = s.joined.load(std::memory_order_relaxed);
    do {
      if ((joined & kClosed) != 0) break;
    } while (!s.joined.compare_exchange_weak(joined, joined + 1, std::memory_order_acq_rel));
    if ((joined & kClosed) != 0) continue;
    take_blocks(thread);
    if (s.joined.fetch_sub(1, std::memory_order_acq_rel) == kClosed + 1) {
      const std::lock_guard lock(s.mutex);
      s.finished.notify_one();
    }
  }
}

void ThreadPool::stop() noexcept {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stopping.store(true, std::memory_order_relaxed);
    shared_->generation.fetch_add(1, std::memory_order_release);
  }
  shared_->started.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::take_blocks(int thread) {
  Shared& s = *shared_;
  try {
    while (true) {
      const int64_t block = s.next.fetch_add(1, std::memory_order_relaxed);
      if (block >= s.blocks) return;
      s.function(s.context, block, thread);
    }
  } catch (...) {
    s.next.store(s.blocks, std::memory_order_relaxed);
    const std::lock_guard lock(s.mutex);
    if (!s.error) s.error = std::current_exception();
  }
}

void ThreadPool::run_erased(int64_t blocks, Function function, const void* context) {
  if (!run_nanoseconds_) return run_blocks(blocks, function, context);
  const auto begin = std::chrono::steady_clock::now();
  run_blocks(blocks, function, context);
  *run_nanoseconds_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

void ThreadPool::run_blocks(int64_t blocks, Function function, const void* context) {
  if (blocks <= 0) return;
  void* body = const_cast<void*>(context);
  if (workers_.empty() || blocks == 1) {
    for (int64_t block = 0; block < blocks; ++block) function(body, block, 0);
    return;
  }
  Shared& s = *shared_;
  {
    const std::lock_guard lock(s.mutex);
    s.function = function;
    s.context = body;
    s.blocks = blocks;
    s.error = nullptr;
    s.next.store(0, std::memory_order_relaxed);
    s.joined.store(0, std::memory_order_release);
    s.generation.fetch_add(1, std::memory_order_release);
  }
  s.started.notify_all();
  take_blocks(0);
  s.joined.fetch_or(kClosed, std::memory_order_acq_rel);
  const auto idle = [&] { return s.joined.load(std::memory_order_acquire) == kClosed; };
  if (!spin_until(spin_, idle)) {
    std::unique_lock lock(s.mutex);
    s.finished.wait(lock, idle);
  }
  std::exception_ptr error;
  {
    const std::lock_guard lock(s.mutex);
    error = std::exchange(s.error, nullptr);
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace permafrost
