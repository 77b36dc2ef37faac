#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace permafrost {

/// An image file and what is asked about it.
struct ListedImage {
  std::filesystem::path file;
  std::string question;  ///< empty: none
};

/// What `path` names: an image; the .jpg, .jpeg and .png files of a folder, by name; or a .txt file with one image per
/// line, relative to its folder, which may be followed by a tab and a question (empty lines are passed over). Images
/// without a question of their own get `question`. Errors: kData for a path that is not there, an image of a list that
/// is not there (with its line), a folder or list without images.
std::vector<ListedImage> list_images(const std::filesystem::path& path, const std::string& question);

}  // namespace permafrost
