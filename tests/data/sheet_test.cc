#include "data/images/sheet.h"

#include <bit>
#include <set>

#include "data/files/read_file.h"
#include "data/images/decode.h"
#include "data/images/encode.h"
#include "data/images/glyphs.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

Image filled(int64_t width, int64_t height, std::array<uint8_t, 3> rgb) {
  Image image;
  image.set_up(width, height);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = rgb[i % 3];
  return image;
}

int64_t count_color(const Image& image, std::array<int, 3> rgb) {
  int64_t count = 0;
  for (size_t i = 0; i < image.pixels.size(); i += 3)
    count += image.pixels[i] == rgb[0] && image.pixels[i + 1] == rgb[1] && image.pixels[i + 2] == rgb[2];
  return count;
}
int64_t count_ink(const Image& image, const Ink& ink) { return count_color(image, {ink.red, ink.green, ink.blue}); }

/// Pixels that are set in the glyphs of a text.
int64_t glyph_pixels(std::string_view text) {
  int64_t count = 0;
  for (char c : text)
    for (uint8_t row : kGlyphs[static_cast<size_t>(c - ' ')]) count += std::popcount(row);
  return count;
}

TEST(Glyphs, AreDistinctAndFiveWide) {
  std::set<std::array<uint8_t, kGlyphHeight>> distinct(kGlyphs.begin(), kGlyphs.end());
  EXPECT_EQ(distinct.size(), kGlyphs.size());
  for (const auto& glyph : kGlyphs)
    for (uint8_t row : glyph) EXPECT_LT(row, 1 << kGlyphWidth);
}

TEST(DrawText, SetsThePixelsOfTheGlyphsAndNoneOutside) {
  Image image = filled(30, 12, {255, 255, 255});
  draw_text(image, 2, 3, "Ib", {1, 2, 3});
  EXPECT_EQ(count_ink(image, {1, 2, 3}), glyph_pixels("Ib"));
  EXPECT_EQ(image.row(3)[3 * 3], 1);  // upper bar of the I: columns 1 to 3
  EXPECT_EQ(image.row(3)[2 * 3], 255);
  EXPECT_EQ(image.row(3)[8 * 3], 1);  // and the stem of the b, six further on
  Image twice = filled(60, 24, {255, 255, 255});
  draw_text(twice, 4, 6, "Ib", {1, 2, 3}, 2);
  EXPECT_EQ(count_ink(twice, {1, 2, 3}), 4 * glyph_pixels("Ib"));
  Image narrow_image = filled(4, 4, {255, 255, 255});
  draw_text(narrow_image, -3, -2, "WWW", {1, 2, 3}, 2);  // touches nothing outside; the address sanitizer watches
  Image unknown = filled(10, 10, {255, 255, 255}), question = unknown;
  draw_text(unknown, 0, 0, "\xC3", {1, 2, 3});
  draw_text(question, 0, 0, "?", {1, 2, 3});
  EXPECT_EQ(unknown.pixels, question.pixels);
}

TEST(WrapText, CutsAtSpacesAndLongWordsAnywhere) {
  using Lines = std::vector<std::string>;
  EXPECT_EQ(wrap_text("a red circle", 20), Lines{"a red circle"});
  EXPECT_EQ(wrap_text("a red circle", 12), Lines{"a red circle"});
  EXPECT_EQ(wrap_text("a red circle", 11), (Lines{"a red", "circle"}));
  EXPECT_EQ(wrap_text("a red circle", 5), (Lines{"a red", "circl", "e"}));
  EXPECT_EQ(wrap_text("", 5), Lines{});
  EXPECT_TRUE(throws_error([] { wrap_text("a", 0); }, ErrorKind::kInvalidArgument, {"at least one character"}));
}

TEST(Sheet, ShowsEveryPictureAndBothKindsOfCaption) {
  const std::vector<SheetEntry> entries = {{filled(48, 48, {10, 20, 30}), "right words", "right words", true},
                                           {filled(48, 48, {40, 50, 60}), "wrong words", "other words", false},
                                           {filled(300, 20, {70, 80, 90}), "more", "more", true}};
  const Image sheet = draw_sheet(entries, 2);
  EXPECT_EQ(count_color(sheet, {10, 20, 30}), 240 * 240);
  EXPECT_EQ(count_color(sheet, {40, 50, 60}), 240 * 240);
  EXPECT_EQ(count_color(sheet, {70, 80, 90}), 300 * 20);  // large enough as it is
  EXPECT_EQ(count_ink(sheet, kRightInk), 4 * (glyph_pixels("right words") + glyph_pixels("more")));
  EXPECT_EQ(count_ink(sheet, kWrongInk), 4 * glyph_pixels("wrong words"));
  EXPECT_EQ(count_ink(sheet, kExpectedInk), 4 * glyph_pixels("expected: other words"));
  // Two columns: the third picture is in the second row.
  EXPECT_GT(sheet.width, 2 * 300);
  EXPECT_LT(sheet.width, 3 * 300);
  EXPECT_GT(sheet.height, 2 * 240);
  EXPECT_EQ(draw_sheet(entries, 9).height, draw_sheet(entries, 3).height);  // no empty columns
}

TEST(Sheet, ShowsWhatNobodyCanJudgeInGrey) {
  const std::vector<SheetEntry> entries = {{filled(48, 48, {10, 20, 30}), "some words", "", std::nullopt}};
  const Image sheet = draw_sheet(entries, 1);
  EXPECT_EQ(count_ink(sheet, kExpectedInk), 4 * glyph_pixels("some words"));
  EXPECT_EQ(count_ink(sheet, kRightInk) + count_ink(sheet, kWrongInk), 0);
}

TEST(Sheet, IsWrittenAsAPngOfTheSamePixels) {
  const DataFolder folder;
  const std::vector<SheetEntry> entries = {{filled(20, 20, {10, 20, 30}), "words", "words", true}};
  write_sheet(folder.path() / "sheet.png", entries, 1);
  std::vector<uint8_t> bytes;
  read_binary_file(folder.path() / "sheet.png", bytes);
  Image decoded;
  decode_image(bytes, {}, "sheet.png", decoded);
  EXPECT_EQ(decoded.pixels, draw_sheet(entries, 1).pixels);
  EXPECT_TRUE(throws_error([&] { write_sheet("/proc/none/sheet.png", entries, 1); }, ErrorKind::kStorage,
                           {"/proc/none/sheet.png"}));
}

TEST(Sheet, RefusesWhatItCannotLayOut) {
  const std::vector<SheetEntry> none, one = {{filled(4, 4, {0, 0, 0}), "", "", true}};
  EXPECT_TRUE(throws_error([&] { draw_sheet(none, 1); }, ErrorKind::kInvalidArgument, {"got 0 and 1"}));
  EXPECT_TRUE(throws_error([&] { draw_sheet(one, 0); }, ErrorKind::kInvalidArgument, {"got 1 and 0"}));
  std::vector<SheetEntry> grey(1);
  grey[0].image.set_up(4, 4, 1);
  EXPECT_TRUE(throws_error([&] { draw_sheet(grey, 1); }, ErrorKind::kInvalidArgument, {"RGB", "1 channels"}));
}

TEST(EncodePng, DecodesToTheSamePixels) {
  Image image;
  image.set_up(13, 7);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i * 37);
  for (PngEffort effort : {PngEffort::kSmall, PngEffort::kFast}) {
    Image decoded;
    decode_image(encode_png(image.view(), effort), {}, "memory", decoded);
    EXPECT_EQ(decoded.pixels, image.pixels);
    decode_image(encode_png(image.view().crop(2, 1, 5, 4), effort), {}, "memory", decoded);  // rows with gaps
    EXPECT_EQ(decoded.width, 5);
    EXPECT_TRUE(std::equal(decoded.row(3), decoded.row(3) + 15, image.row(4) + 6));
  }
  Image grey;
  grey.set_up(3, 2, 1);
  grey.pixels = {1, 2, 3, 4, 5, 6};
  Image decoded;
  decode_image(encode_png(grey.view()), {}, "memory", decoded);
  EXPECT_EQ(decoded.pixels, (std::vector<uint8_t>{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6}));
}

TEST(EncodePng, RefusesOtherChannelsAndNoPixels) {
  Image image;
  image.set_up(2, 2, 2);
  EXPECT_TRUE(throws_error([&] { encode_png(image.view()); }, ErrorKind::kInvalidArgument, {"got 2 channels"}));
  image.set_up(0, 2, 3);
  EXPECT_TRUE(throws_error([&] { encode_png(image.view()); }, ErrorKind::kInvalidArgument, {"0 x 2 pixels"}));
}

}  // namespace
}  // namespace permafrost::testing
