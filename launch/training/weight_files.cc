#include "launch/training/weight_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "core/weights/source.h"

namespace permafrost {

namespace {

/// Part and path of the weights that the configuration names.
std::vector<std::pair<std::string, std::string>> given_weights(const config::Config& config) {
  const auto& files = config.weights();
  std::vector<std::pair<std::string, std::string>> given{
      {"vision", files.vision()}, {"text", files.text()}, {"adapter", files.adapter()}};
  std::erase_if(given, [](const auto& part) { return part.second.empty(); });
  return given;
}

}  // namespace

int64_t identity_of_files(const config::Config& config) {
  Sha256 hash;
  for (const auto& [part, path] : given_weights(config)) {
    const WeightSource source = WeightSource::open(path);
    for (const auto& file : source.files()) {
      struct stat status = {};
      if (stat(file->path().c_str(), &status) != 0)
        fail(ErrorKind::kStorage, "cannot look at ", file->path(), ": ", std::strerror(errno));
      const std::string line = concat(part, " ", status.st_dev, " ", status.st_ino, " ", status.st_size, " ",
                                      status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec, "\n");
      hash.update(line.data(), line.size());
    }
  }
  return static_cast<int64_t>(std::stoull(hash.finish().substr(0, 15), nullptr, 16));
}

std::map<std::string, std::string> ends_of_tensors(const config::Config& config) {
  constexpr int64_t kEnd = 4096;
  std::map<std::string, std::string> ends;
  for (const auto& [part, path] : given_weights(config)) {
    const WeightSource source = WeightSource::open(path);
    for (const SourceTensor& tensor : source.tensors()) {
      const int64_t bytes = tensor.stored.bytes, end = std::min(bytes, kEnd);
      std::vector<std::byte> both(static_cast<size_t>(2 * end));
      source.read(tensor, 0, std::span(both).first(static_cast<size_t>(end)));
      source.read(tensor, bytes - end, std::span(both).last(static_cast<size_t>(end)));
      ends[part + " " + tensor.stored.name] =
          concat(tensor.stored.dtype_name, " ", tensor.stored.shape.str(), " ", sha256(both.data(), both.size()));
    }
  }
  return ends;
}

}  // namespace permafrost
