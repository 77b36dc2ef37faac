#pragma once
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <string_view>

#include "core/base/handle.h"

namespace permafrost {

// Regular expressions over UTF-8, by PCRE2. All errors are kInternal, said by `who`: the expressions are the program's.

struct PcreCodeTraits {
  using Type = pcre2_code*;
  static Type null() { return nullptr; }
  static void close(Type code) noexcept { pcre2_code_free(code); }
};
using PcreCode = Handle<PcreCodeTraits>;

/// Where a match and its groups are; working memory of one thread.
struct PcreMatchTraits {
  using Type = pcre2_match_data*;
  static Type null() { return nullptr; }
  static void close(Type data) noexcept { pcre2_match_data_free(data); }
};
using PcreMatch = Handle<PcreMatchTraits>;

/// With PCRE2_UTF and `options`. Errors: an expression that is none, with PCRE2's reason and the place.
PcreCode compile_pcre(std::string_view pattern, uint32_t options, std::string_view who);

/// With room for the whole match and `groups` groups. Errors: no memory.
PcreMatch make_pcre_match(uint32_t groups, std::string_view who);

/// Looks for the expression from byte `at` of `text`, which must be UTF-8, on. Returns 0 where it does not match, else
/// how many of the whole match (1) and the groups up to the last that took part have their ranges in `match`.
/// Errors: whatever ends the search before it is decided, such as PCRE2's limits; less room than groups.
int search_pcre(const PcreCode& code, std::string_view text, size_t at, const PcreMatch& match, std::string_view who);

}  // namespace permafrost
