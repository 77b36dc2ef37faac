#include "launch/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>
#include <thread>

namespace permafrost {

namespace {

/// First line of a file, empty when it cannot be read.
std::string first_line(const std::string& path) {
  std::ifstream stream(path);
  std::string line;
  std::getline(stream, line);
  return line;
}

}  // namespace

int cores_of_cpu_max(const std::string& text) {
  std::istringstream stream(text);
  int64_t quota_us = 0, period_us = 0;
  if (!(stream >> quota_us >> period_us) || quota_us <= 0 || period_us <= 0) return 0;
  return static_cast<int>(std::clamp<int64_t>((quota_us + period_us - 1) / period_us, 1, 1 << 20));
}

int granted_cores() {
  const std::string v1 = "/sys/fs/cgroup/cpu/cpu.";
  int granted = 0;
  for (const int limit : {cores_of_cpu_max(first_line("/sys/fs/cgroup/cpu.max")),
                          cores_of_cpu_max(first_line(v1 + "cfs_quota_us") + " " + first_line(v1 + "cfs_period_us"))})
    if (limit > 0) granted = granted == 0 ? limit : std::min(granted, limit);
  return granted;
}

int64_t start_of_stat(const std::string& text) {
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return -1;
  std::istringstream stream(text.substr(name_end + 1));
  std::string word;
  for (int field = 3; field < 22; ++field) stream >> word;
  int64_t ticks = -1;
  return stream >> ticks ? ticks : -1;
}

double seconds_since_process_start() {
  const int64_t ticks = start_of_stat(first_line("/proc/self/stat"));
  timespec now = {};
  if (ticks < 0 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
         static_cast<double>(ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cores = CPU_COUNT(&mask);
  if (const int granted = granted_cores()) cores = std::min(cores, granted);
  return std::max(cores, 1);
}

}  // namespace permafrost
