#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/images/image.h"

namespace permafrost {

/// One picture with what was said about it.
struct SheetEntry {
  Image image;                         ///< RGB
  std::string caption;                 ///< in the colour of right or of wrong ones
  std::string expected;                ///< below it, where the caption is wrong
  std::optional<bool> correct = true;  ///< none: nobody knows; such captions are grey
};

/// Pictures of at most half this width, in pixels, are shown with their pixels as squares, as large as fit into it: one
/// of 64 is 192 wide. Wider ones are shown as they are.
inline constexpr int64_t kSheetImageWidth = 240;

/// Draws pictures in a grid, `columns` a row in the order of the entries, with their captions below; long captions go
/// on in further lines. Characters outside ASCII are shown as '?'. Errors: kInvalidArgument for no entries, columns
/// below 1, or images that are not RGB.
Image draw_sheet(std::span<const SheetEntry> entries, int64_t columns);

/// The same as a PNG file. Errors: kStorage naming the path.
void write_sheet(const std::filesystem::path& path, std::span<const SheetEntry> entries, int64_t columns);

struct Ink {
  uint8_t red = 0, green = 0, blue = 0;
};
inline constexpr Ink kRightInk{20, 110, 45}, kWrongInk{190, 30, 30}, kExpectedInk{90, 90, 90};

/// Writes one line with its upper left corner at (x, y), each pixel of a character as a square of `scale`. What is
/// outside the image is left out.
void draw_text(Image& image, int64_t x, int64_t y, std::string_view text, const Ink& ink, int64_t scale = 1);

/// Cut at spaces so that no line has more than `width` characters; words that are longer are cut.
std::vector<std::string> wrap_text(std::string_view text, size_t width);

}  // namespace permafrost
