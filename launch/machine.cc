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

int64_t bytes_of_memory_max(const std::string& text) {
  std::istringstream stream(text);
  int64_t bytes = 0;
  // Version 1 of control groups writes "no limit" as a number close to 2^63.
  if (!(stream >> bytes) || bytes <= 0 || bytes >= (int64_t{1} << 60)) return 0;
  return bytes;
}

int usable_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cores = CPU_COUNT(&mask);
  const std::string v1 = "/sys/fs/cgroup/cpu/cpu.";
  for (const int limit : {cores_of_cpu_max(first_line("/sys/fs/cgroup/cpu.max")),
                          cores_of_cpu_max(first_line(v1 + "cfs_quota_us") + " " + first_line(v1 + "cfs_period_us"))})
    if (limit > 0) cores = std::min(cores, limit);
  return std::max(cores, 1);
}

int64_t usable_memory_bytes() {
  int64_t bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const int64_t limit = bytes_of_memory_max(first_line(path));
    if (limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace permafrost
