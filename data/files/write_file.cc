#include "data/files/write_file.h"

#include <fstream>

#include "core/base/check.h"

namespace permafrost {

void write_file(const std::filesystem::path& path, std::span<const uint8_t> bytes, std::string_view who) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  stream.close();
  if (!stream) fail(ErrorKind::kStorage, who, ": cannot write ", path.string());
}

}  // namespace permafrost
