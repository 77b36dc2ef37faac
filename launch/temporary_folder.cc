#include "launch/temporary_folder.h"

#include <unistd.h>

namespace permafrost {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder(const std::string& name)
    : path_(fs::temp_directory_path() / ("permafrost-" + name + "-" + std::to_string(getpid()))) {}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

int64_t TemporaryFolder::file_bytes() const {
  int64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(path_, ignored))
    if (entry.is_regular_file(ignored)) bytes += static_cast<int64_t>(entry.file_size());
  return bytes;
}

}  // namespace permafrost
