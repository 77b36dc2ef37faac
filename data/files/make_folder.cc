#include "data/files/make_folder.h"

#include "core/base/check.h"

namespace permafrost {

void make_folder(const std::filesystem::path& folder, std::string_view who) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorKind::kStorage, who, ": cannot make the folder ", folder.string(), ": ", error.message());
}

}  // namespace permafrost
