#include "launch/sample_photos.h"

#include <jpeglib.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/philox.h"
#include "core/weights/atomic_file.h"
#include "data/files/make_folder.h"
#include "data/files/write_file.h"
#include "data/images/encode.h"
#include "data/tokenizer/train_byte_pair.h"

namespace permafrost {

namespace {

namespace fs = std::filesystem;

struct Color {
  const char* name;
  std::array<uint8_t, 3> rgb;
};
constexpr std::array<Color, 6> kColors = {{{"red", {210, 40, 40}},
                                           {"green", {40, 160, 70}},
                                           {"blue", {50, 80, 200}},
                                           {"yellow", {230, 200, 50}},
                                           {"white", {235, 235, 235}},
                                           {"black", {25, 25, 25}}}};
constexpr std::array<const char*, 3> kShapes = {"circle", "square", "triangle"};
constexpr const char* kSamplePhotos = "sample photos";  // who says what is wrong
constexpr std::array<uint8_t, 3> kGround = {120, 125, 130};

struct Thing {
  size_t shape = 0;
  size_t color = 0;
};

/// Whether a point is inside a shape of half width `r` around the origin; y points down.
bool inside(size_t shape, double x, double y, double r) {
  switch (shape) {
    case 0:
      return x * x + y * y <= r * r;
    case 1:
      return std::abs(x) <= 0.85 * r && std::abs(y) <= 0.85 * r;
    default:
      return y <= 0.8 * r && y >= -r + 2 * std::abs(x) * 0.95;
  }
}

std::vector<uint8_t> draw(const Thing& first, const Thing& second, bool vertical, int size) {
  std::vector<uint8_t> pixels(static_cast<size_t>(size) * static_cast<size_t>(size) * 3);
  for (int row = 0; row < size; ++row) {
    for (int column = 0; column < size; ++column) {
      const double along = (vertical ? row : column) + 0.5, across = (vertical ? column : row) + 0.5;
      const bool in_first = along < size / 2.0;
      const Thing& thing = in_first ? first : second;
      const double a = along - size * (in_first ? 0.25 : 0.75), b = across - size * 0.5;
      const bool hit = inside(thing.shape, vertical ? b : a, vertical ? a : b, size * 0.21);
      const auto& rgb = hit ? kColors[thing.color].rgb : kGround;
      std::copy(rgb.begin(), rgb.end(), pixels.begin() + (static_cast<std::ptrdiff_t>(row) * size + column) * 3);
    }
  }
  return pixels;
}

void write_png(const fs::path& path, std::vector<uint8_t>& pixels, int size) {
  write_file(path, encode_png({pixels.data(), size, size, 3, 3 * int64_t{size}}), kSamplePhotos);
}

void write_jpeg(const fs::path& path, std::vector<uint8_t>& pixels, int size) {
  // Compressed to memory first: libjpeg's own writer ends the process when a disk is full.
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* bytes = nullptr;
  unsigned long length = 0;
  jpeg_mem_dest(&jpeg, &bytes, &length);
  jpeg.image_width = jpeg.image_height = static_cast<JDIMENSION>(size);
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 95, TRUE);
  jpeg_start_compress(&jpeg, TRUE);
  for (int row = 0; row < size; ++row) {
    JSAMPROW line = pixels.data() + static_cast<size_t>(row) * static_cast<size_t>(size) * 3;
    jpeg_write_scanlines(&jpeg, &line, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  const std::unique_ptr<unsigned char, void (*)(void*)> owner(bytes, &std::free);
  write_file(path, {bytes, length}, kSamplePhotos);
}

std::string phrase(const Thing& thing) { return concat("a ", kColors[thing.color].name, " ", kShapes[thing.shape]); }

}  // namespace

void write_sample_photos(const fs::path& folder, int count, int size_pixels, uint64_t seed) {
  make_folder(folder / "images", kSamplePhotos);
  OrderedJson images = OrderedJson::array(), annotations = OrderedJson::array();
  for (int id = 0; id < count; ++id) {
    Random random(seed, RandomPurpose::kSynthetic, 0, static_cast<uint64_t>(id));
    std::array<Thing, 2> things;
    for (Thing& thing : things) thing = {random.next_below(kShapes.size()), random.next_below(kColors.size())};
    const bool vertical = random.next_below(2) == 1;
    std::vector<uint8_t> pixels = draw(things[0], things[1], vertical, size_pixels);
    const std::string number = std::to_string(id);
    const std::string name =
        std::string(6 - std::min<size_t>(6, number.size()), '0') + number + (id % 2 ? ".png" : ".jpg");
    (id % 2 ? write_png : write_jpeg)(folder / "images" / name, pixels, size_pixels);
    images.push_back({{"id", id}, {"file_name", name}, {"width", size_pixels}, {"height", size_pixels}});
    const std::string where = vertical ? " above " : " left of ", turned = vertical ? " below " : " right of ";
    for (const std::string& caption :
         {phrase(things[0]) + where + phrase(things[1]), phrase(things[1]) + turned + phrase(things[0])})
      annotations.push_back({{"id", annotations.size()}, {"image_id", id}, {"caption", caption}});
  }
  const OrderedJson info = {{"description", "generated by permafrost data sample-photos"}};
  const OrderedJson all = {{"info", info}, {"images", images}, {"annotations", annotations}};
  write_file_atomically((folder / "captions.json").string(), json_text(all, 1) + "\n");
}

void write_byte_tokenizer(const fs::path& folder) { write_byte_pair_files(folder, opt_special_tokens(), {}); }

}  // namespace permafrost
