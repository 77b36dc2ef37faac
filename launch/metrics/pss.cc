#include "launch/metrics/pss.h"

#include <fstream>
#include <sstream>

namespace permafrost {

int64_t pss_of_smaps(const std::string& text) {
  std::istringstream stream(text);
  std::string line;
  while (std::getline(stream, line)) {
    std::istringstream words(line);
    std::string name, unit;
    int64_t kib = 0;
    if (words >> name >> kib >> unit && name == "Pss:" && unit == "kB") return kib * 1024;
  }
  return 0;
}

int64_t pss_bytes() {
  std::ifstream stream("/proc/self/smaps_rollup");
  std::ostringstream text;
  text << stream.rdbuf();
  return stream ? pss_of_smaps(text.str()) : 0;
}

}  // namespace permafrost
