#include "core/weights/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/check.h"

namespace permafrost {

InputFile::InputFile(std::string path, const char* expected)
    : path_(std::move(path)), file_(open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (!file_) {
    const int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? ErrorKind::kWeights : ErrorKind::kStorage, path_, ": expected ",
         expected, "; cannot open: ", std::strerror(error));
  }
  struct stat info {};
  if (fstat(file_.get(), &info) != 0)
    fail(ErrorKind::kStorage, "cannot ask for the size of ", path_, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode))
    fail(ErrorKind::kWeights, path_, ": expected ", expected, "; got something else (a folder?)");
  bytes_ = info.st_size;
}

void InputFile::read(int64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = pread(file_.get(), out.data(), out.size(), offset);
    if (count < 0) {
      if (errno == EINTR) continue;
      fail(ErrorKind::kStorage, "cannot read ", path_, " at byte ", offset, ": ", std::strerror(errno));
    }
    if (count == 0)
      fail(ErrorKind::kStorage, path_, ": ended at byte ", offset, " with ", out.size(),
           " bytes to come; it became shorter while open");
    out = out.subspan(static_cast<size_t>(count));
    offset += count;
  }
}

std::string start_of_file(const InputFile& file, int64_t bytes) {
  std::string start(static_cast<size_t>(std::min(bytes, file.bytes())), '\0');
  file.read(0, std::as_writable_bytes(std::span(start)));
  return start;
}

}  // namespace permafrost
