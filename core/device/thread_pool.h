#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace permafrost {

/// Runs numbered blocks on a fixed set of threads. Kernels cut their work into blocks by shape alone, so results
/// never depend on the number of threads; only who computes a block does.
class ThreadPool {
 public:
  /// How long a thread without work looks for some before it sleeps. Kernels follow each other within microseconds, and
  /// to wake a thread takes as long as a small product. The long spin is for pools that have a core per thread; the
  /// short one leaves the cores to others.
  static constexpr std::chrono::microseconds kShortSpin{20}, kLongSpin{200};

  /// threads >= 1, the caller included: ThreadPool(1) starts no thread and runs everything inline.
  /// Errors: kInvalidArgument below 1; kInternal with the system's reason when a thread cannot be started.
  explicit ThreadPool(int threads, std::chrono::microseconds spin = kShortSpin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(block, thread) for every block in [0, blocks), thread in [0, threads()); returns when all are done.
  /// Blocks are handed out dynamically. The first exception is rethrown here after all threads stopped taking blocks.
  /// Not reentrant: a body must not call run on the same pool.
  template <typename Body>
  void run(int64_t blocks, Body&& body) {
    run_erased(
        blocks,
        [](void* context, int64_t block, int thread) {
          (*static_cast<std::remove_reference_t<Body>*>(context))(block, thread);
        },
        &body);
  }

  /// For profiles: from now on adds the nanoseconds that each call of `run` takes to `total`; null: to nothing. On the
  /// thread that calls `run`.
  void time_runs(int64_t* total) { run_nanoseconds_ = total; }

 private:
  using Function = void (*)(void*, int64_t, int);
  struct Shared;
  void run_erased(int64_t blocks, Function function, const void* context);
  void run_blocks(int64_t blocks, Function function, const void* context);
  void work(int thread);
  void take_blocks(int thread);
  void stop() noexcept;

  std::chrono::microseconds spin_;
  int64_t* run_nanoseconds_ = nullptr;
  std::unique_ptr<Shared> shared_;
  std::vector<std::thread> workers_;
};

}  // namespace permafrost
