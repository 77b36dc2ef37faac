#include "launch/evaluation/image_list.h"

#include <algorithm>
#include <fstream>

#include "core/base/check.h"

namespace permafrost {

namespace fs = std::filesystem;

namespace {

std::string lower_extension(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return extension;
}

std::vector<ListedImage> images_of_folder(const fs::path& folder, const std::string& question) {
  std::vector<ListedImage> images;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string extension = lower_extension(entry.path());
    if (entry.is_regular_file() && (extension == ".jpg" || extension == ".jpeg" || extension == ".png"))
      images.push_back({entry.path(), question});
  }
  std::ranges::sort(images, {}, &ListedImage::file);
  return images;
}

std::vector<ListedImage> images_of_list(const fs::path& list, const std::string& question) {
  std::ifstream file(list);
  if (!file) fail(ErrorKind::kData, "generate: cannot read ", list.string());
  std::vector<ListedImage> images;
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    const size_t tab = line.find('\t');
    const fs::path image = list.parent_path() / line.substr(0, tab);
    if (!fs::is_regular_file(image))
      fail(ErrorKind::kData, "generate: every line must name an image file; got ", image.string(), " [", list.string(),
           ":", number, "]");
    const std::string own = tab == std::string::npos ? "" : line.substr(tab + 1);
    images.push_back({image, own.empty() ? question : own});
  }
  return images;
}

}  // namespace

std::vector<ListedImage> list_images(const fs::path& path, const std::string& question) {
  const bool folder = fs::is_directory(path);
  if (!folder && !fs::is_regular_file(path))
    fail(ErrorKind::kData, "generate: --image must be an image, a folder or a list of images; got ", path.string(),
         ", which is not there");
  if (!folder && lower_extension(path) != ".txt") return {{path, question}};
  std::vector<ListedImage> images = folder ? images_of_folder(path, question) : images_of_list(path, question);
  if (images.empty())
    fail(ErrorKind::kData, "generate: --image must name at least one ", folder ? ".jpg, .jpeg or .png file" : "image",
         "; got none in ", path.string());
  return images;
}

}  // namespace permafrost
