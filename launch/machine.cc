#include "launch/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
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

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cores = CPU_COUNT(&mask);
  if (const int granted = granted_cores()) cores = std::min(cores, granted);
  return std::max(cores, 1);
}

}  // namespace permafrost
