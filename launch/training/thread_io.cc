#include "launch/training/thread_io.h"

#include <fstream>
#include <sstream>

namespace permafrost {

std::optional<int64_t> rchar_of_io(const std::string& text) {
  std::istringstream words(text);
  std::string name;
  int64_t value = 0;
  while (words >> name >> value)
    if (name == "rchar:") return value;
  return std::nullopt;
}

std::optional<int64_t> bytes_read_by_this_thread() {
  std::ifstream stream("/proc/thread-self/io");
  std::ostringstream text;
  text << stream.rdbuf();
  return rchar_of_io(text.str());
}

}  // namespace permafrost
