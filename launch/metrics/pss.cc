#include "launch/metrics/pss.h"

#include <fstream>
#include <sstream>

namespace permafrost {

ProcessMemory memory_of_smaps(const std::string& text) {
  ProcessMemory memory;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string name, unit;
    int64_t kib = 0;
    if (!(words >> name >> kib >> unit) || unit != "kB") continue;
    if (name == "Pss:") memory.pss_bytes = kib * 1024;
    if (name == "Private_Clean:" || name == "Private_Dirty:") memory.uss_bytes += kib * 1024;
  }
  return memory;
}

ProcessMemory process_memory() {
  std::ifstream stream("/proc/self/smaps_rollup");
  std::ostringstream text;
  text << stream.rdbuf();
  return stream ? memory_of_smaps(text.str()) : ProcessMemory{};
}

}  // namespace permafrost
