#include "core/base/utf8.h"

namespace permafrost {
namespace {

/// Allowed range of the second byte and number of continuation bytes after a lead byte (Unicode 15, table 3-7).
struct Lead {
  size_t continuations;
  unsigned char low, high;
};

Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};  // beyond are surrogates
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step next_utf8(std::string_view text, size_t position) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(position);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  if (lead.continuations == 0) return {0, 1, false};
  char32_t code_point = first & (0x3Fu >> lead.continuations);
  for (size_t i = 1; i <= lead.continuations; ++i) {
    if (position + i >= text.size()) return {0, i, false};
    const unsigned char byte = at(position + i);
    const unsigned char low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {0, i, false};
    code_point = (code_point << 6) | (byte & 0x3Fu);
  }
  return {code_point, lead.continuations + 1, true};
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const Utf8Step step = next_utf8(bytes, i);
    if (step.valid) {
      text.append(bytes.substr(i, step.bytes));
    } else {
      append_utf8(text, 0xFFFD);
    }
    i += step.bytes;
  }
  return text;
}

std::string printable(std::string_view text, Lines lines) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string shown;
  shown.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = next_utf8(text, i);
    const char32_t c = step.code_point;
    const bool line_break = lines == Lines::kSeveral && (c == '\n' || c == '\t');
    const bool control = c < 0x20 || (c >= 0x7F && c < 0xA0);
    const std::string_view bytes = text.substr(i, step.bytes);
    if (step.valid && (line_break || !control)) {
      shown.append(bytes);
    } else {
      for (const char byte : bytes) {
        const auto value = static_cast<unsigned char>(byte);
        shown.append("\\x") += kDigits[value >> 4];
        shown += kDigits[value & 15u];
      }
    }
    i += step.bytes;
  }
  return shown;
}

}  // namespace permafrost
