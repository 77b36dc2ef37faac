#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/weights/safetensors.h"
#include "data/datasets/caption_dataset.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/support/compare.h"

namespace permafrost::testing {

/// A folder of its own under the system's temporary folder, removed at the end.
class DataFolder {
 public:
  DataFolder();
  ~DataFolder();
  DataFolder(const DataFolder&) = delete;
  DataFolder& operator=(const DataFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  /// Writes a file, making its folders, and returns its path.
  std::filesystem::path write(const std::string& name, std::string_view bytes) const;

 private:
  std::filesystem::path path_;
};

/// Folder named by PERMAFROST_TEST_DATA with `name` inside; empty when it is not there. Test data are public files
/// too large for the repository.
std::optional<std::filesystem::path> test_data(const std::string& name);

/// GTEST_SKIP with a word when `path` (an optional of test_data) is empty.
#define PERMAFROST_NEEDS(path) \
  if (!(path)) GTEST_SKIP() << "needs test data: PERMAFROST_TEST_DATA must name a folder that holds them"

std::string from_base64(std::string_view text);

/// A u8 image of shape [height, width, 3], or any golden of bytes.
struct GoldenBytes {
  std::vector<int64_t> shape;
  std::vector<uint8_t> values;
};
GoldenBytes golden_bytes(const SafetensorsReader& file, const std::string& name);
std::vector<float> golden_floats(const SafetensorsReader& file, const std::string& name);

/// "1.5,2,3" as numbers.
std::vector<double> numbers(const std::string& list);

/// vocab.json and merges.txt of a small byte-level vocabulary: `<s>`, `<pad>`, `</s>`, `<unk>`, the 256 bytes, then
/// the results of the merges " t", "he", " the", " a".
void write_small_vocabulary(const DataFolder& folder, const std::string& under = "");
Tokenizer small_tokenizer();

/// A COCO captions file and a folder `images` with the committed little images: caption i has id 100 + i and stands for
/// image i % (number of images). Returns the configuration that loads it.
CaptionDatasetConfig write_small_dataset(const DataFolder& folder, const std::vector<std::string>& captions);

}  // namespace permafrost::testing
