#include "launch/metrics/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/check.h"

namespace permafrost {

void DescriptorTraits::close(Type descriptor) noexcept { ::close(descriptor); }

OutputFile::OutputFile(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  if (!descriptor_)
    fail(ErrorKind::kStorage, "output: expected a file that can be written; got ", path_.string(), ": ",
         std::strerror(errno));
}

void OutputFile::append(std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = ::write(descriptor_.get(), data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      fail(ErrorKind::kStorage, "output: cannot append ", data.size(), " bytes to ", path_.string(), ": ",
           std::strerror(errno));
    data.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace permafrost
