#include "parallel/group/process_watch.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace permafrost {
namespace {

constexpr auto kLookEvery = std::chrono::milliseconds(20);

int open_pidfd(int64_t pid) {
#ifdef SYS_pidfd_open
  return static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
#else
  errno = ENOSYS;
  return -1;
#endif
}

/// No such process, or one that has ended and was not collected yet.
bool ended_by_proc(int64_t pid) {
  std::array<char, 512> text{};
  std::snprintf(text.data(), text.size(), "/proc/%lld/stat", static_cast<long long>(pid));
  const int file = open(text.data(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno == ENOENT || errno == ESRCH;
  const ssize_t length = read(file, text.data(), text.size() - 1);
  close(file);
  if (length <= 0) return true;
  text[static_cast<size_t>(length)] = '\0';
  const char* name_end = std::strrchr(text.data(), ')');  // the state follows the name, which may hold anything
  return name_end && name_end[1] == ' ' && (name_end[2] == 'Z' || name_end[2] == 'X');
}

}  // namespace

ProcessWatch::ProcessWatch(std::span<const int64_t> pids) : pids_(pids.begin(), pids.end()), by_proc_(pids.size()) {
  for (size_t i = 0; i < pids_.size(); ++i) {
    const int file = pids_[i] == 0 ? -1 : open_pidfd(pids_[i]);
    polled_.push_back({file, POLLIN, 0});
    by_proc_[i] = pids_[i] != 0 && file < 0;
    any_by_proc_ = any_by_proc_ || by_proc_[i];
  }
  polled_.push_back({eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), POLLIN, 0});
}

ProcessWatch::~ProcessWatch() {
  for (const pollfd& entry : polled_)
    if (entry.fd >= 0) close(entry.fd);
}

std::optional<int> ProcessWatch::look_at_proc() const {
  for (size_t i = 0; i < pids_.size(); ++i)
    if (by_proc_[i] && ended_by_proc(pids_[i])) return static_cast<int>(i);
  return std::nullopt;
}

std::optional<int> ProcessWatch::gone(std::chrono::milliseconds wait) {
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (true) {
    if (any_by_proc_)
      if (const auto ended = look_at_proc()) return ended;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const auto slice = std::max(std::chrono::milliseconds(0), any_by_proc_ ? std::min(left, kLookEvery) : left);
    if (poll(polled_.data(), polled_.size(), static_cast<int>(slice.count())) > 0) {
      for (size_t i = 0; i < pids_.size(); ++i)
        if (polled_[i].revents != 0) return static_cast<int>(i);
      uint64_t count = 0;
      if (polled_.back().revents != 0 && read(polled_.back().fd, &count, sizeof count) > 0) return std::nullopt;
    }
    if (left <= slice) return std::nullopt;
  }
}

void ProcessWatch::wake() {
  const uint64_t one = 1;
  if (write(polled_.back().fd, &one, sizeof one) < 0) return;  // full: a wake-up is waiting already
}

}  // namespace permafrost
