#include "data/tokenizer/unicode.h"

namespace permafrost {

bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view strip_left(std::string_view text) {
  size_t begin = 0;
  while (begin < text.size()) {
    const Utf8Step step = next_utf8(text, begin);
    if (!step.valid || !is_python_space(step.code_point)) break;
    begin += step.bytes;
  }
  return text.substr(begin);
}

std::string_view strip_right(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = end - 1;  // walk back over continuation bytes to the start of the last character
    while (start > 0 && end - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    const Utf8Step step = next_utf8(text.substr(0, end), start);
    if (!step.valid || start + step.bytes != end || !is_python_space(step.code_point)) break;
    end = start;
  }
  return text.substr(0, end);
}

std::array<char32_t, 256> gpt2_characters() {
  std::array<char32_t, 256> characters;
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    characters[byte] = itself ? byte : next++;
  }
  return characters;
}

std::vector<std::string_view> python_words(std::string_view text) {
  std::vector<std::string_view> words;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = next_utf8(text, i);
    if (step.valid && is_python_space(step.code_point)) {
      if (i > begin) words.push_back(text.substr(begin, i - begin));
      begin = i + step.bytes;
    }
    i += step.bytes;
  }
  if (begin < text.size()) words.push_back(text.substr(begin));
  return words;
}

}  // namespace permafrost
