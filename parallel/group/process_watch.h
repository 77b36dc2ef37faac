#pragma once
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace permafrost {

/// Notices when processes of this machine end, whoever started them and however they end: by pidfd where the kernel has
/// it (Linux 5.3), else by /proc, looked at every 20 ms. After construction nothing is allocated.
class ProcessWatch {
 public:
  /// pids: 0 stands for a process that is not watched (another machine, this process).
  explicit ProcessWatch(std::span<const int64_t> pids);
  ~ProcessWatch();
  ProcessWatch(const ProcessWatch&) = delete;
  ProcessWatch& operator=(const ProcessWatch&) = delete;

  /// Index of a process that has ended, the first such; waits for one at most so long. One thread at a time.
  std::optional<int> gone(std::chrono::milliseconds wait);
  /// Ends a wait under way, or the next one; any thread.
  void wake();
  int64_t pid(int index) const { return pids_[static_cast<size_t>(index)]; }

 private:
  std::optional<int> look_at_proc() const;

  std::vector<int64_t> pids_;
  std::vector<pollfd> polled_;  // one per process (-1: no pidfd), and the wake-up call last
  std::vector<bool> by_proc_;
  bool any_by_proc_ = false;
};

}  // namespace permafrost
