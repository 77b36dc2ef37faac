#include "data/datasets/sample_id.h"

#include <algorithm>
#include <charconv>

#include "core/base/check.h"
#include "core/base/sha256.h"

namespace permafrost {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_number(std::string_view text) { return !text.empty() && std::ranges::all_of(text, is_digit); }

uint64_t hashed_id(std::string_view text) {
  return std::stoull(sha256(text.data(), text.size()).substr(0, kSampleIdBits / 4), nullptr, 16);
}

/// Numbers that fit; none otherwise.
bool to_number(std::string_view digits, uint64_t& number) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && end == digits.data() + digits.size() && number < uint64_t{1} << kSampleIdBits;
}

/// "%d" or "%012d" at the start of `text`: its length and width, or 0.
size_t number_placeholder(std::string_view text, size_t& width) {
  size_t at = 1;
  width = 0;
  while (at < text.size() && is_digit(text[at]) && at < 5) width = 10 * width + static_cast<size_t>(text[at++] - '0');
  const bool padded = at == 1 || text[1] == '0';
  return at < text.size() && text[at] == 'd' && padded ? at + 1 : 0;
}

}  // namespace

WrittenId sample_id(std::string_view written) {
  WrittenId id;
  const bool canonical = is_number(written) && (written.size() == 1 || written[0] != '0');
  if (canonical && to_number(written, id.number)) return id;
  id.number = hashed_id(written);
  id.name = written;
  return id;
}

uint64_t image_number(std::string_view written) {
  size_t digits = 0;
  while (digits < written.size() && is_digit(written[written.size() - 1 - digits])) ++digits;
  uint64_t number = 0;
  return digits > 0 && to_number(written.substr(written.size() - digits), number) ? number : hashed_id(written);
}

std::string image_file_name(std::string_view pattern, std::string_view id) {
  const size_t at = pattern.find('%');
  size_t width = 0;
  const std::string_view from = at == std::string_view::npos ? std::string_view() : pattern.substr(at);
  const size_t length = from.starts_with("%s") ? 2 : from.empty() ? 0 : number_placeholder(from, width);
  if (length == 0 || from.find('%', length) != std::string_view::npos)
    fail(ErrorKind::kConfig, "dataset: image_name must hold one of %s, %d, %012d; got '", pattern,
         "' [param=data.image_name]");
  std::string text(id);
  if (from[1] != 's') {
    if (!is_number(id))
      fail(ErrorKind::kData, "dataset: image_name '", pattern, "' needs ids that are numbers; got '", id, "'");
    text.insert(0, width > text.size() ? width - text.size() : 0, '0');
  } else if (id.empty() || id.find('/') != std::string_view::npos || id.find('\0') != std::string_view::npos) {
    fail(ErrorKind::kData, "dataset: an image id without '/' is expected; got '", id, "'");
  }
  return std::string(pattern.substr(0, at)) + text + std::string(from.substr(length));
}

}  // namespace permafrost
