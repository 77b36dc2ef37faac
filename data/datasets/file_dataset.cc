#include "data/datasets/file_dataset.h"

#include <algorithm>

#include "core/base/check.h"
#include "data/files/read_file.h"

namespace permafrost {

void FileDataset::read_image(int64_t image, std::vector<uint8_t>& bytes) const {
  read_binary_file(image_path(image), bytes);
}

int64_t FileDataset::image_bytes(int64_t image) const {
  std::error_code error;
  const auto size = std::filesystem::file_size(image_path(image), error);
  if (error)
    fail(ErrorKind::kData, "dataset: a readable image is expected; got ", error.message(), " [file=", image_name(image),
         "]");
  return static_cast<int64_t>(size);
}

size_t FileDataset::place(int64_t image) const {
  PERMAFROST_CHECK(image >= 0 && image < images(), "dataset: image must lie in 0..", images() - 1, "; got ", image);
  return static_cast<size_t>(image);
}

int64_t FileDataset::add_image(uint64_t id, std::string name) {
  image_ids_.push_back(id);
  image_names_.push_back(std::move(name));
  return images() - 1;
}

void FileDataset::finish(MissingImages missing, const std::string& what, const std::string& place) {
  if (const auto id = store_.repeated_id())
    fail(ErrorKind::kData, "dataset: ", what, " ids must be unique; got id ", *id, " twice", place);
  store_.finish();
  std::vector<bool> named(image_names_.size());
  for (int64_t i = 0; i < size(); ++i) named[static_cast<size_t>(sample(i).image)] = true;
  images_without_sample_ = std::count(named.begin(), named.end(), false);
  if (missing == MissingImages::kFail) check_files(place);
}

void FileDataset::check_files(const std::string& place) const {
  if (!std::filesystem::is_directory(folder_))
    fail(ErrorKind::kData, "dataset: a folder of images is expected; got no such folder [file=", folder_.string(), "]");
  int64_t missing = 0;
  std::filesystem::path first;
  for (int64_t i = 0; i < images(); ++i) {
    std::error_code ignored;
    if (std::filesystem::exists(image_path(i), ignored)) continue;
    if (missing++ == 0) first = image_path(i);
  }
  if (missing > 0)
    fail(ErrorKind::kData, "dataset: every listed image must be in the folder; got ", missing, " of ", images(),
         " missing, the first is ", first.string(), place);
}

}  // namespace permafrost
