#include "data/files/read_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/base/check.h"
#include "core/base/handle.h"

namespace permafrost {
namespace {

struct FileTraits {
  using Type = std::FILE*;
  static Type null() { return nullptr; }
  static void close(Type file) noexcept { std::fclose(file); }
};

template <typename Container>
void read_into(const std::filesystem::path& path, Container& bytes) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code))
    fail(ErrorKind::kData, "read_file: a regular file is expected; got ",
         code ? code.message() : std::string("something else"), " [file=", path.string(), "]");
  const Handle<FileTraits> file(std::fopen(path.c_str(), "rb"));
  if (!file)
    fail(ErrorKind::kData, "read_file: a readable file is expected; got '", std::strerror(errno),
         "' [file=", path.string(), "]");
  constexpr size_t kChunkBytes = size_t{1} << 16;
  const auto size = std::filesystem::file_size(path, code);
  bytes.resize(code ? 0 : static_cast<size_t>(size));
  size_t filled = 0;
  while (true) {  // the file may grow or shrink while we read: trust fread, not the size
    if (filled == bytes.size()) bytes.resize(filled + kChunkBytes);
    const size_t got = std::fread(bytes.data() + filled, 1, bytes.size() - filled, file.get());
    filled += got;
    if (got == 0) break;
  }
  if (std::ferror(file.get()))
    fail(ErrorKind::kData, "read_file: reading must succeed; got '", std::strerror(errno), "' after ", filled,
         " bytes [file=", path.string(), "]");
  bytes.resize(filled);
}

}  // namespace

std::string read_text_file(const std::filesystem::path& path) {
  std::string text;
  read_into(path, text);
  return text;
}

void read_binary_file(const std::filesystem::path& path, std::vector<uint8_t>& bytes) { read_into(path, bytes); }

}  // namespace permafrost
