#include "parallel/group/process_watch.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "tests/support/compare.h"

namespace permafrost {
namespace {

using std::chrono::milliseconds;

/// A process that waits to be killed.
struct Child {
  Child() {
    if (pid == 0)
      while (true) pause();
  }
  ~Child() { end(); }
  void end() {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    pid = -1;
  }
  pid_t pid = fork();
};

TEST(ProcessWatch, NoticesWhoIsKilledAndNobodyElse) {
  Child first;
  Child second;
  const std::array<int64_t, 3> pids = {first.pid, 0, second.pid};
  ProcessWatch watch(pids);
  EXPECT_EQ(watch.gone(milliseconds(0)), std::nullopt);
  EXPECT_EQ(watch.pid(2), second.pid);
  kill(second.pid, SIGKILL);  // not collected yet: it is gone all the same
  EXPECT_EQ(watch.gone(milliseconds(5000)), 2);
  second.end();
  EXPECT_EQ(watch.gone(milliseconds(0)), 2);
}

TEST(ProcessWatch, AProcessThatWasGoneBeforeIsGone) {
  Child child;
  const std::array<int64_t, 1> pids = {child.pid};
  child.end();
  ProcessWatch watch(pids);
  EXPECT_EQ(watch.gone(milliseconds(100)), 0);
}

TEST(ProcessWatch, IsWokenUp) {
  ProcessWatch watch({});
  std::thread waker([&] { watch.wake(); });
  EXPECT_EQ(watch.gone(std::chrono::minutes(10)), std::nullopt);  // or the test never ends
  waker.join();
}

}  // namespace
}  // namespace permafrost
