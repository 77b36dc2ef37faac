#include "data/tokenizer/pcre.h"

#include <string>

#include "core/base/check.h"

namespace permafrost {
namespace {

PCRE2_SPTR pcre_bytes(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string pcre_message(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

PcreCode compile_pcre(std::string_view pattern, uint32_t options, std::string_view who) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  PcreCode code(pcre2_compile(pcre_bytes(pattern), pattern.size(), PCRE2_UTF | options, &error, &offset, nullptr));
  if (!code)
    fail(ErrorKind::kInternal, who, ": PCRE2 must compile '", pattern, "'; got '", pcre_message(error), "' at offset ",
         offset);
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // a PCRE2 built without JIT interprets instead
  return code;
}

PcreMatch make_pcre_match(uint32_t groups, std::string_view who) {
  PcreMatch match(pcre2_match_data_create(1 + groups, nullptr));
  if (!match) fail(ErrorKind::kInternal, who, ": PCRE2 could not allocate match data");
  return match;
}

int search_pcre(const PcreCode& code, std::string_view text, size_t at, const PcreMatch& match, std::string_view who) {
  const auto run = [&](uint32_t options) {
    return pcre2_match(code.get(), pcre_bytes(text), text.size(), at, PCRE2_NO_UTF_CHECK | options, match.get(),
                       nullptr);
  };
  int found = run(0);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = run(PCRE2_NO_JIT);  // words of many thousand letters
  if (found == PCRE2_ERROR_NOMATCH) return 0;
  if (found <= 0)
    fail(ErrorKind::kInternal, who, ": PCRE2 must find or not find at byte ", at, " of ", text.size(), "; got '",
         found == 0 ? "more groups than there is room for" : pcre_message(found), "'");
  return found;
}

}  // namespace permafrost
