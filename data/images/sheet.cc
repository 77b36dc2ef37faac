#include "data/images/sheet.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/weights/atomic_file.h"
#include "data/images/encode.h"
#include "data/images/glyphs.h"

namespace permafrost {

namespace {

constexpr int64_t kTextScale = 2;
constexpr int64_t kAdvance = (kGlyphWidth + 1) * kTextScale, kLineHeight = (kGlyphHeight + 3) * kTextScale;
constexpr int64_t kGap = 14;  // around every cell, in pixels
constexpr uint8_t kPaper = 255;

/// What stands below a picture.
struct SheetText {
  std::vector<std::string> caption, expected;
  int64_t lines() const { return static_cast<int64_t>(caption.size() + expected.size()); }
};

/// Sizes that all cells of a sheet share: those of the largest picture and of the longest text.
struct SheetLayout {
  int64_t columns = 0, rows = 0, image_width = 0, image_height = 0, text_lines = 0;
  std::vector<SheetText> texts;
  int64_t cell_width() const { return image_width + kGap; }
  int64_t cell_height() const { return image_height + text_lines * kLineHeight + 2 * kGap; }
};

const Ink& caption_ink(const SheetEntry& entry) {
  if (!entry.correct) return kExpectedInk;
  return *entry.correct ? kRightInk : kWrongInk;
}

int64_t zoom_of(const Image& image) { return std::max<int64_t>(1, kSheetImageWidth / image.width); }

SheetLayout lay_out(std::span<const SheetEntry> entries, int64_t columns) {
  SheetLayout layout;
  layout.columns = std::min(columns, static_cast<int64_t>(entries.size()));
  layout.rows = div_up(static_cast<int64_t>(entries.size()), layout.columns);
  for (const SheetEntry& entry : entries) {
    PERMAFROST_CHECK(entry.image.channels == 3 && entry.image.width > 0 && entry.image.height > 0,
                     "draw_sheet: RGB images are expected; got ", entry.image.channels, " channels and ",
                     entry.image.width, " x ", entry.image.height, " pixels");
    layout.image_width = std::max(layout.image_width, entry.image.width * zoom_of(entry.image));
    layout.image_height = std::max(layout.image_height, entry.image.height * zoom_of(entry.image));
  }
  const auto width = static_cast<size_t>(layout.image_width / kAdvance);
  for (const SheetEntry& entry : entries) {
    SheetText text{wrap_text(entry.caption, width), {}};
    if (entry.correct == false) text.expected = wrap_text("expected: " + entry.expected, width);
    layout.text_lines = std::max(layout.text_lines, text.lines());
    layout.texts.push_back(std::move(text));
  }
  return layout;
}

void copy_magnified(const Image& from, int64_t zoom, int64_t left, int64_t top, Image& to) {
  for (int64_t y = 0; y < from.height * zoom; ++y) {
    const uint8_t* source = from.pixels.data() + y / zoom * from.row_bytes();
    uint8_t* pixel = to.row(top + y) + left * 3;
    for (int64_t x = 0; x < from.width * zoom; ++x, pixel += 3) std::copy_n(source + x / zoom * 3, 3, pixel);
  }
}

void fill_square(Image& image, int64_t left, int64_t top, int64_t size, const Ink& ink) {
  for (int64_t y = std::max<int64_t>(0, top); y < std::min(image.height, top + size); ++y)
    for (int64_t x = std::max<int64_t>(0, left); x < std::min(image.width, left + size); ++x) {
      uint8_t* pixel = image.row(y) + 3 * x;
      pixel[0] = ink.red;
      pixel[1] = ink.green;
      pixel[2] = ink.blue;
    }
}

}  // namespace

void draw_text(Image& image, int64_t x, int64_t y, std::string_view text, const Ink& ink, int64_t scale) {
  for (const char character : text) {
    const bool known = character >= ' ' && character <= '~';
    const auto& glyph = kGlyphs[static_cast<size_t>((known ? character : '?') - ' ')];
    const int64_t top = kDescenders.find(character) == std::string_view::npos ? y : y + kDescent * scale;
    for (int64_t row = 0; row < kGlyphHeight; ++row)
      for (int64_t column = 0; column < kGlyphWidth; ++column)
        if (glyph[static_cast<size_t>(row)] >> (kGlyphWidth - 1 - column) & 1)
          fill_square(image, x + column * scale, top + row * scale, scale, ink);
    x += (kGlyphWidth + 1) * scale;
  }
}

std::vector<std::string> wrap_text(std::string_view text, size_t width) {
  PERMAFROST_CHECK(width > 0, "wrap_text: at least one character a line is expected; got 0");
  std::vector<std::string> lines;
  while (!text.empty()) {
    size_t end = text.size();
    if (end > width) {
      const size_t space = text.rfind(' ', width);
      end = space == std::string_view::npos || space == 0 ? width : space;
    }
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
    if (text.starts_with(' ')) text.remove_prefix(1);
  }
  return lines;
}

Image draw_sheet(std::span<const SheetEntry> entries, int64_t columns) {
  PERMAFROST_CHECK(!entries.empty() && columns >= 1, "draw_sheet: entries and columns of at least 1 are expected; got ",
                   entries.size(), " and ", columns);
  const SheetLayout layout = lay_out(entries, columns);
  Image sheet;
  sheet.set_up(layout.columns * layout.cell_width() + kGap, layout.rows * layout.cell_height() + kGap);
  std::ranges::fill(sheet.pixels, kPaper);
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    const int64_t left = place % layout.columns * layout.cell_width() + kGap;
    const int64_t top = place / layout.columns * layout.cell_height() + kGap;
    const SheetEntry& entry = entries[i];
    copy_magnified(entry.image, zoom_of(entry.image), left, top, sheet);
    int64_t y = top + layout.image_height + kGap / 2;
    const auto write_lines = [&](const std::vector<std::string>& lines, const Ink& ink) {
      for (const std::string& line : lines) {
        draw_text(sheet, left, y, line, ink, kTextScale);
        y += kLineHeight;
      }
    };
    write_lines(layout.texts[i].caption, caption_ink(entry));
    write_lines(layout.texts[i].expected, kExpectedInk);
  }
  return sheet;
}

void write_sheet(const std::filesystem::path& path, std::span<const SheetEntry> entries, int64_t columns) {
  const std::vector<uint8_t> bytes = encode_png(draw_sheet(entries, columns).view());
  write_file_atomically(path.string(), {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace permafrost
