#include <chrono>
#include <iostream>
#include <sstream>

#include "data/files/read_file.h"
#include "data/images/codecs.h"
#include "data/images/decode.h"
#include "data/images/resize.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

std::vector<uint8_t> bytes_of(const std::filesystem::path& file) {
  std::vector<uint8_t> bytes;
  read_binary_file(file, bytes);
  return bytes;
}

std::vector<std::string> golden_files(const SafetensorsReader& goldens) {
  std::vector<std::string> names;
  std::istringstream in(goldens.metadata().at("files"));
  for (std::string name; std::getline(in, name, ',');) names.push_back(name);
  return names;
}

::testing::AssertionResult same_image(const Image& got, const GoldenBytes& want) {
  if (want.shape != std::vector<int64_t>{got.height, got.width, got.channels})
    return ::testing::AssertionFailure() << "size " << got.width << " x " << got.height;
  for (size_t i = 0; i < want.values.size(); ++i)
    if (got.pixels[i] != want.values[i])
      return ::testing::AssertionFailure()
             << "value " << i << ": got " << int{got.pixels[i]} << ", want " << int{want.values[i]};
  return ::testing::AssertionSuccess();
}

TEST(Decode, EveryKindOfFileAsPillow) {
  const SafetensorsReader goldens(golden_path("images.safetensors"));
  for (const std::string& name : golden_files(goldens)) {
    const auto bytes = bytes_of(golden_path("jpeg_png/" + name));
    Image rgb;
    decode_image(bytes, {}, name, rgb);
    EXPECT_TRUE(same_image(rgb, golden_bytes(goldens, name + ".rgb"))) << name;
    decode_image(bytes, {OrientationPolicy::kApply}, name, rgb);
    const bool turned = goldens.find(name + ".oriented") != nullptr;
    EXPECT_EQ(turned, goldens.metadata().at(name + ".orientation") != "1") << name;
    EXPECT_TRUE(same_image(rgb, golden_bytes(goldens, name + (turned ? ".oriented" : ".rgb")))) << name;
  }
}

TEST(Decode, ExifOrientation) {
  const std::vector<uint8_t> little{'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};
  const std::vector<uint8_t> big{'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0};
  EXPECT_EQ(exif_orientation(little), 6);
  EXPECT_EQ(exif_orientation(big), 8);
  for (size_t size = 0; size < little.size(); ++size)  // cut anywhere: no orientation, no reading beyond the end
    EXPECT_EQ(exif_orientation(std::span(little).first(size)), 1) << size;
  auto wrong = little;
  wrong[18] = 9;
  EXPECT_EQ(exif_orientation(wrong), 1);
  wrong = little;
  wrong[4] = 0xFF, wrong[5] = 0xFF, wrong[6] = 0xFF, wrong[7] = 0xFF;
  EXPECT_EQ(exif_orientation(wrong), 1);
}

TEST(Decode, RefusesWhatIsNotAnImage) {
  Image rgb;
  const auto refused = [&](const std::vector<uint8_t>& bytes, const std::vector<std::string>& parts) {
    return throws_error([&] { decode_image(bytes, {}, "photo.jpg", rgb); }, ErrorKind::kData, parts);
  };
  EXPECT_TRUE(refused({}, {"got an empty one", "[file=photo.jpg]"}));
  EXPECT_TRUE(refused({'G', 'I', 'F', '8'}, {"JPEG or PNG", "4 bytes that begin with 47 49 46 38", "photo.jpg"}));
  EXPECT_TRUE(refused({0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 1, 0xFF, 0xD9}, {"a sound JPEG", "photo.jpg"}));
  EXPECT_TRUE(refused({0xFF, 0xD8, 0xFF}, {"a whole JPEG", "truncated at 3 bytes", "photo.jpg"}));
  auto png = bytes_of(golden_path("jpeg_png/rgb.png"));
  auto broken = png;
  broken[20] ^= 1;  // inside the header chunk: its checksum fails
  EXPECT_TRUE(refused(broken, {"a sound PNG", "CRC", "photo.jpg"}));
  broken = png;
  broken[200] ^= 1;  // inside the pixels
  EXPECT_TRUE(refused(broken, {"a sound PNG", "photo.jpg"}));
  EXPECT_TRUE(throws_error(
      [&] {
        decode_image(png, {OrientationPolicy::kIgnore, 493}, "big.png", rgb);
      },
      ErrorKind::kData, {"between 1 and 493 pixels", "got 26 x 19", "big.png"}));
  const auto jpeg = bytes_of(golden_path("jpeg_png/rgb.jpg"));
  EXPECT_TRUE(throws_error(
      [&] {
        decode_image(jpeg, {OrientationPolicy::kIgnore, 493}, "big.jpg", rgb);
      },
      ErrorKind::kData, {"between 1 and 493 pixels", "got 26 x 19", "big.jpg"}));
}

/// Cut at every length: truncation is always noticed.
TEST(Decode, RefusesEveryTruncation) {
  for (const std::string name :
       {"rgb.jpg", "progressive.jpg", "cmyk.jpg", "rgb.png", "palette_transparent.png", "grey16.png"}) {
    const auto bytes = bytes_of(golden_path("jpeg_png/" + name));
    // Behind the pixels a PNG has only its 12-byte end chunk and the checksum of the last data chunk.
    const size_t last = name.ends_with("png") ? bytes.size() - 17 : bytes.size() - 1;
    Image rgb;
    for (size_t size = 0; size <= last; size += size < 64 ? 1 : 7)
      EXPECT_TRUE(throws_error([&] { decode_image(std::span(bytes).first(size), {}, "cut", rgb); }, ErrorKind::kData,
                               {"decode_image", "cut"}))
          << name << " cut to " << size << " of " << bytes.size();
  }
}

TEST(Decode, FilesByName) {
  const DataFolder folder;
  std::vector<uint8_t> bytes;
  Image rgb;
  decode_image_file(golden_path("jpeg_png/grey.jpg"), {}, bytes, rgb);
  EXPECT_EQ(rgb.width, 26);
  EXPECT_TRUE(throws_error([&] { decode_image_file(folder.path() / "none.jpg", {}, bytes, rgb); }, ErrorKind::kData,
                           {"read_file", "none.jpg"}));
  EXPECT_TRUE(throws_error([&] { decode_image_file(folder.path(), {}, bytes, rgb); }, ErrorKind::kData,
                           {"a regular file is expected", folder.path().string()}));
}

/// Mutated files decode or are refused; they neither crash nor run away.
TEST(Decode, SurvivesMutatedFiles) {
  const SafetensorsReader goldens(golden_path("images.safetensors"));
  Random random(11, RandomPurpose::kSynthetic);
  int decoded = 0, refused = 0;
  for (const std::string& name : golden_files(goldens)) {
    const auto bytes = bytes_of(golden_path("jpeg_png/" + name));
    for (int round = 0; round < 40; ++round) {
      auto mutant = bytes;
      const auto changes = 1 + random.next_below(6);
      for (uint64_t i = 0; i < changes; ++i) {
        const size_t at = random.next_below(mutant.size());
        switch (random.next_below(4)) {
          case 0:
            mutant[at] = static_cast<uint8_t>(random.next_below(256));
            break;
          case 1:
            mutant[at] = 0xFF;
            break;
          case 2:
            mutant.erase(mutant.begin() + static_cast<std::ptrdiff_t>(at));
            break;
          default:
            mutant.insert(mutant.begin() + static_cast<std::ptrdiff_t>(at),
                          static_cast<uint8_t>(random.next_below(256)));
        }
      }
      Image rgb;
      try {
        decode_image(mutant, {OrientationPolicy::kApply, 1 << 20}, name, rgb);
        EXPECT_EQ(static_cast<int64_t>(rgb.pixels.size()), rgb.width * rgb.height * 3);
        ++decoded;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kData) << error.what();
        ++refused;
      }
    }
  }
  EXPECT_GT(decoded, 50);
  EXPECT_GT(refused, 50);
}

TEST(Resize, EqualsPillow) {
  const SafetensorsReader goldens(golden_path("resize.safetensors"));
  ResizeScratch scratch;
  std::istringstream cases(goldens.metadata().at("cases"));
  int compared = 0;
  for (std::string name; std::getline(cases, name, ',');) {
    const GoldenBytes src = golden_bytes(goldens, name + ".src");
    const ImageView source{src.values.data(), src.shape[1], src.shape[0], src.shape[2], src.shape[1] * src.shape[2]};
    std::optional<ResizeBox> box;
    if (const auto given = goldens.metadata().find(name + ".box"); given != goldens.metadata().end()) {
      const auto v = numbers(given->second);
      box = ResizeBox{static_cast<float>(v[0]), static_cast<float>(v[1]), static_cast<float>(v[2]),
                      static_cast<float>(v[3])};
    }
    for (const auto& [filter, word] :
         {std::pair{ResizeFilter::kBicubic, ".bicubic"}, {ResizeFilter::kBilinear, ".bilinear"}}) {
      if (!goldens.find(name + word)) continue;
      const GoldenBytes want = golden_bytes(goldens, name + word);
      Image out;
      resize_image(source, filter, want.shape[1], want.shape[0], scratch, out, box);
      EXPECT_TRUE(same_image(out, want)) << name << word;
      ++compared;
    }
  }
  EXPECT_GE(compared, 20);
}

TEST(Resize, Contracts) {
  const std::vector<uint8_t> pixels(4 * 5 * 3, 7);
  const ImageView source{pixels.data(), 4, 5, 3, 12};
  ResizeScratch scratch;
  Image out;
  const auto refused = [&](const ImageView& from, int64_t width, std::optional<ResizeBox> box,
                           const std::string& part) {
    return throws_error([&] { resize_image(from, ResizeFilter::kBicubic, width, 2, scratch, out, box); },
                        ErrorKind::kInvalidArgument, {"resize_image", part});
  };
  EXPECT_TRUE(refused(source, 0, {}, "sizes must be positive"));
  EXPECT_TRUE(refused({pixels.data(), 4, 5, 2, 12}, 2, {}, "got 2"));
  EXPECT_TRUE(refused(source, 2, ResizeBox{0, 0, 4.5f, 5}, "box must lie in 0,0,4,5"));
  EXPECT_TRUE(refused(source, 2, ResizeBox{2, 0, 2, 5}, "box must lie"));
  resize_image(source, ResizeFilter::kBicubic, 9, 2, scratch, out);
  EXPECT_EQ(out.pixels, std::vector<uint8_t>(9 * 2 * 3, 7));
  // A view into a larger image: taps stay inside the part.
  std::vector<uint8_t> framed(6 * 7 * 3, 255);
  for (int64_t y = 1; y < 6; ++y) std::fill_n(framed.begin() + (y * 6 + 1) * 3, 12, uint8_t{7});
  resize_image(ImageView{framed.data(), 6, 7, 3, 18}.crop(1, 1, 4, 5), ResizeFilter::kBicubic, 9, 2, scratch, out);
  EXPECT_EQ(out.pixels, std::vector<uint8_t>(9 * 2 * 3, 7));
}

TEST(Decode, PhotographsAndSpeed) {
  const auto folder = test_data("coco_open/images");
  PERMAFROST_NEEDS(folder);
  std::vector<uint8_t> bytes;
  Image rgb, square;
  ResizeScratch scratch;
  int photographs = 0;
  double decode_seconds = 0, resize_seconds = 0;
  for (const auto& entry : std::filesystem::directory_iterator(*folder)) {
    if (++photographs > 40) break;
    const auto start = std::chrono::steady_clock::now();
    decode_image_file(entry.path(), {}, bytes, rgb);
    const auto middle = std::chrono::steady_clock::now();
    resize_image(rgb.view(), ResizeFilter::kBicubic, 224, 224, scratch, square);
    decode_seconds += std::chrono::duration<double>(middle - start).count();
    resize_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - middle).count();
    EXPECT_GE(std::min(rgb.width, rgb.height), 100) << entry.path();
  }
  EXPECT_GT(photographs, 10);
  std::cout << "images: decode " << decode_seconds / photographs * 1e3 << " ms, resize to 224 "
            << resize_seconds / photographs * 1e3 << " ms per photograph on one core\n";
}

}  // namespace
}  // namespace permafrost::testing
