#include "parallel/group/node/free_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

namespace permafrost {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

/// The number of a file that holds one; none for "max", and for no such file.
std::optional<int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

/// The number after `key` in a file of lines "key number".
std::optional<int64_t> number_after(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    int64_t value = 0;
    if (words >> word && word == key && words >> value) return value;
  }
  return std::nullopt;
}

/// This process's control group for `controller`; "" is that of the second version.
std::string control_group(const fs::path& root, const std::string& controller) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    if (line.substr(first + 1, second - first - 1) == controller) return line.substr(second + 1);
  }
  return "/";
}

/// What the limits of `group` and of the groups above it leave; the least limit itself without `used_file`.
int64_t left_in(const fs::path& tree, const fs::path& group, const char* limit_file, const char* used_file,
                const char* cache_key) {
  int64_t left = kUnknown;
  for (fs::path at = group.relative_path();; at = at.parent_path()) {
    const fs::path folder = at.empty() ? tree : tree / at;
    if (const auto limit = number_in(folder / limit_file)) {
      const int64_t used = used_file ? number_in(folder / used_file).value_or(0) : 0;
      const int64_t cache = used_file ? number_after(folder / "memory.stat", cache_key).value_or(0) : 0;
      left = std::min(left, std::max<int64_t>(0, *limit - used + cache));
    }
    if (at.empty()) return left;
  }
}

}  // namespace

int64_t memory_limit_bytes(const fs::path& root) {
  int64_t bytes = kUnknown;
  if (const auto total = number_after(root / "proc/meminfo", "MemTotal:")) bytes = *total * 1024;
  bytes = std::min(bytes, left_in(root / "sys/fs/cgroup", control_group(root, ""), "memory.max", nullptr, nullptr));
  return std::min(bytes, left_in(root / "sys/fs/cgroup/memory", control_group(root, "memory"), "memory.limit_in_bytes",
                                 nullptr, nullptr));
}

int64_t free_memory_bytes(const fs::path& root) {
  int64_t bytes = kUnknown;
  if (const auto available = number_after(root / "proc/meminfo", "MemAvailable:")) bytes = *available * 1024;
  bytes = std::min(
      bytes, left_in(root / "sys/fs/cgroup", control_group(root, ""), "memory.max", "memory.current", "inactive_file"));
  return std::min(bytes, left_in(root / "sys/fs/cgroup/memory", control_group(root, "memory"), "memory.limit_in_bytes",
                                 "memory.usage_in_bytes", "total_inactive_file"));
}

}  // namespace permafrost
