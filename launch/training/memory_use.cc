#include "launch/training/memory_use.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/base/narrow.h"
#include "launch/training/plan_setup.h"

namespace permafrost {

int64_t resident_bytes(const std::byte* data, int64_t bytes) {
  if (bytes == 0) return 0;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGE_SIZE));
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = address / page * page;
  const size_t length = address + narrow<uintptr_t>(bytes) - begin;
  std::vector<unsigned char> pages((length + page - 1) / page);
  if (mincore(reinterpret_cast<void*>(begin), length, pages.data()) != 0)
    fail(ErrorKind::kInternal, "memory: the kernel must tell which pages are resident; mincore says ",
         std::strerror(errno));
  int64_t resident = 0;
  for (unsigned char state : pages) resident += state & 1;
  return resident * narrow<int64_t>(page);
}

namespace {

std::vector<MemoryUse> forecasts(const Plan& plan) {
  const MemoryPlan& m = plan.memory;
  const HostMemoryPlan& host = plan.host_memory;
  if (plan.world.device == DeviceKind::kCuda)
    return {{"frozen", m.frozen, 0},
            {"working", host.working, 0},
            {"inputs", host.inputs, 0},
            {"staging", host.staging, 0}};
  return {{"frozen", m.frozen, 0},       {"slots", m.slots, 0},         {"arena", m.arena, 0},
          {"working", m.working, 0},     {"optimizer", m.optimizer, 0}, {"sums", m.sums, 0},
          {"gradients", m.gradients, 0}, {"inputs", m.inputs, 0},       {"state", m.state, 0}};
}

}  // namespace

std::vector<MemoryUse> memory_use(const Plan& plan, const std::vector<MemoryPiece>& pieces, int64_t pss_bytes) {
  std::vector<MemoryUse> uses = forecasts(plan);
  int64_t known = 0;
  for (MemoryUse& use : uses) {
    for (const MemoryPiece& piece : pieces)
      if (piece.category == use.category) use.used += resident_bytes(piece.data, piece.bytes);
    if (use.category == "frozen") use.used = div_up(use.used, plan.world.most_ranks_of_a_node());
    known += use.used;
  }
  uses.push_back({"process", process_constant_bytes(plan.world.device), pss_bytes - known});
  return uses;
}

int64_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t kib = 0;
    if (words >> name >> kib && name == "VmHWM:") return kib * 1024;
  }
  return 0;
}

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5\n"; }

}  // namespace permafrost
