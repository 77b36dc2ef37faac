#include "tests/data/support.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/base/json.h"
#include "data/tokenizer/unicode.h"

/// HDF5 1.10.8 leaks a little when it refuses damaged files; read by the leak sanitizer only.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace permafrost::testing {

DataFolder::DataFolder() {
  static std::atomic<int> count{0};
  path_ = std::filesystem::temp_directory_path() / concat("permafrost_data_test_", ::getpid(), "_", count++);
  std::filesystem::create_directories(path_);
}

DataFolder::~DataFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::filesystem::path DataFolder::write(const std::string& name, std::string_view bytes) const {
  const auto file = path_ / name;
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return file;
}

std::optional<std::filesystem::path> test_data(const std::string& name) {
  const char* root = std::getenv("PERMAFROST_TEST_DATA");
  if (!root) return std::nullopt;
  const auto path = std::filesystem::path(root) / name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

std::string from_base64(std::string_view text) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<uint32_t>(kAlphabet.find(c));
    if ((count += 6) >= 8) {
      count -= 8;
      bytes += static_cast<char>(static_cast<unsigned char>(bits >> count));
    }
  }
  return bytes;
}

GoldenBytes golden_bytes(const SafetensorsReader& file, const std::string& name) {
  const auto dims = file.at(name).shape.dims();
  GoldenBytes golden{{dims.begin(), dims.end()}, {}};
  for (std::byte b : file.read_all(name)) golden.values.push_back(static_cast<uint8_t>(b));
  return golden;
}

std::vector<float> golden_floats(const SafetensorsReader& file, const std::string& name) {
  const auto& stored = file.at(name);
  std::vector<float> values(static_cast<size_t>(stored.shape.elements()));
  file.read_tensor(name, Tensor(values.data(), DType::kF32, stored.shape));
  return values;
}

std::vector<double> numbers(const std::string& list) {
  std::vector<double> values;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) values.push_back(std::stod(item));
  return values;
}

void write_small_vocabulary(const DataFolder& folder, const std::string& under) {
  Json vocabulary;
  int id = 0;
  for (const char* token : {"<s>", "<pad>", "</s>", "<unk>"}) vocabulary[token] = id++;
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    std::string character;
    append_utf8(character, itself ? byte : next++);
    vocabulary[character] = id++;
  }
  const std::string space = "\xC4\xA0";  // U+0120, how a space is written
  for (const std::string& token : {space + "t", std::string("he"), space + "the", space + "a"})
    vocabulary[token] = id++;
  folder.write(under + "vocab.json", json_text(vocabulary));
  folder.write(under + "merges.txt", "#version: 0.2\n" + space + " t\nh e\n" + space + "t he\n" + space + " a\n");
}

Tokenizer small_tokenizer() {
  const DataFolder folder;
  write_small_vocabulary(folder);
  return Tokenizer::load({folder.path(), TokenizerRules::kOpt, {}});
}

CaptionDatasetConfig write_small_dataset(const DataFolder& folder, const std::vector<std::string>& captions) {
  const std::vector<std::string> files{"rgb.jpg", "grey.png", "progressive.jpg", "palette_transparent.png", "rgba.png"};
  Json root;
  std::filesystem::create_directories(folder.path() / "images");
  for (size_t i = 0; i < files.size(); ++i) {
    std::filesystem::copy_file(golden_path("jpeg_png/" + files[i]), folder.path() / "images" / files[i]);
    root["images"].push_back({{"id", 10 + i}, {"file_name", files[i]}});
  }
  root["annotations"] = Json::array();
  for (size_t i = 0; i < captions.size(); ++i)
    root["annotations"].push_back({{"id", 100 + i}, {"image_id", 10 + i % files.size()}, {"caption", captions[i]}});
  return {folder.write("captions.json", json_text(root, 1)), folder.path() / "images", CaptionFormat::kCoco, "",
          MissingImages::kFail};
}

}  // namespace permafrost::testing
