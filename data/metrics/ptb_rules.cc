// What the published tokenizer makes of a text, as expressions: found by giving it texts and reading what it prints.
#include "data/metrics/ptb_rules.h"

namespace permafrost {
namespace {

// L: letters and marks, soft hyphen; W: letters and digits; A: apostrophes; S: spaces.
#define L R"([\p{L}\p{M}\x{AD}])"
#define W R"([\p{L}\p{M}\p{Nd}\x{AD}])"
#define A R"(['\x{92}\x{2019}])"
#define S R"([ \t\x{A0}\x{2000}-\x{200A}\x{3000}])"
#define CLITIC "(?:[sSdDmM]|[lL][lL]|[rR][eE]|[vV][eE])"

constexpr PtbRule kRules[] = {
    {Take::kDrop, R"([\s\x{85}\x{1680}\x{2000}-\x{200B}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}]+)"},
    {Take::kDrop, "(?:&nbsp;|\\x{AD}+)"},
    // Tags of mark-up, their spaces included.
    {Take::kToken, "</?[A-Za-z][A-Za-z0-9_.:-]*(?:" S "+[A-Za-z][A-Za-z0-9_:.-]*(?:" S "*=" S
                   R"(*(?:"[^"\n]*"|'[^'\n]*'))?)*)" S "*/?>"},
    {Take::kToken, R"(<[!?][A-Za-z-][^>\r\n]*>)"},
    {Take::kToken, "&(?:[aA][mM][pP]|[lL][tT]|[gG][tT]|[qQ][uU][oO][tT]|[aA][pP][oO][sS]);"},
    // Contractions: "do" of "don't", "it" of "it's", then "n't" and "'s" themselves.
    {Take::kWord, "([A-Za-z]*(?![nN])[A-Za-z])[nN]" A "[tT]"},
    {Take::kToken, "(" W "+)" A CLITIC "(?:(?!" W ")[\\s\\S]|$)"},
    {Take::kToken, "[nN]" A "[tT]"},
    {Take::kToken, "(" A CLITIC ")(?:(?!" L ")[\\s\\S]|$)"},
    {Take::kToken, "(" A "[tT])(?:[iI][sS]|[wW][aA][sS])"},
    {Take::kToken, A "(?:[eE][mM]|[tT][iI][lL][lL]?|[cC][aA][uU][sS][eE])"},
    {Take::kToken, A "[nN]" A},
    {Take::kToken, "(" A "[nN])(?:(?!" L ")[\\s\\S]|$)"},
    {Take::kToken, A "[0-9][0-9](?:[sS]|(?=\\s|$))"},
    {Take::kToken, "[dDlLoO]" A W "+(?:-" W "+)*"},
    {Take::kToken, L "*[aeiouAEIOU]" A "[aeiouAEIOU]" L "*"},  // "ma'am"
    {Take::kToken, "[nN]" A L "+"},
    {Take::kToken, "[A-HJ-XZ]" A L "{2,}"},
    {Take::kToken, "(?:[dDlLjJ]|[oO][lL])" A},
    {Take::kToken, "([yY]" A ")" L},
    {Take::kToken, "[cC][aA][pP]" A "[nN]"},
    // Addresses.
    {Take::kToken, R"((?i:https?)://[^\s"<>|()]+[^\s"<>|.!?(){},-])"},
    {Take::kToken, R"((?i:www)\.(?:[^\s"'<>|.!?(){},/]+\.)+[A-Za-z]{2,4}(?:/[^\s"<>|()]*[^\s"<>|.!?(){},-])?)"},
    {Take::kToken, R"(<?[A-Za-z0-9][^\s"<>|(){}\x{A0}]*@[^\s"<>|(){}.\x{A0}]+(?:\.[^\s"<>|(){}.\x{A0}]+)*>?)"},
    {Take::kToken, R"((?:[A-Za-z0-9-]+\.)+(?:com|net|org|edu)/[^\s"<>|()]+[^\s"<>|.!?(){},-])"},
    {Take::kToken, "@[A-Za-z_][A-Za-z0-9_]*"},
    {Take::kToken, "#" L "+"},
    // Amounts, dates, telephone numbers.
    {Take::kToken, R"([A-Z]{1,2}\$)"},
    {Take::kToken, R"((?:\d{1,4}[- \x{A0}])?\d{1,4}/\d{1,4})"},
    {Take::kToken, R"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})"},
    {Take::kToken,
     R"((?:\(\d{2,3}\)[ \x{A0}]?|(?:\+{1,2})?(?:\d{2,4}[- \x{A0}])?\d{2,4}[- \x{A0}])\d{3,4}[- \x{A0}]?\d{3,5})"},
    {Take::kToken, R"([-+]?(?:\d*(?:[.:,]\d+)+|\d+))"},
    // Words with periods, hyphens, strokes and ampersands inside.
    {Take::kToken, L "+(?:[.!?]" L "+)+"},
    {Take::kToken, R"([A-Za-z](?:\.[A-Za-z])+\.)"},
    {Take::kToken, R"([Pp][Hh]\.[Dd]\.)"},
    {Take::kInitial, R"(([A-Za-z])\.\s+([A-Z][A-Za-z]*)\s)"},
    {Take::kAbbreviation, R"(([A-Za-z]+)\.)"},
    {Take::kNumberAbbreviation, R"(([A-Za-z]+\.)\s?[0-9])"},
    {Take::kToken, "(" W "+(?:[-.!?]" W "+)*\\.)[,;:]"},
    {Take::kToken, R"([A-Za-z0-9][A-Za-z0-9.,\x{AD}]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\x{AD}]+))+)"},
    {Take::kToken, W "+(?:-" W "+)+"},
    {Take::kToken, R"([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*){1,2})"},
    {Take::kToken, "[A-Z]+(?:&[A-Z]+)+"},
    {Take::kToken, "[cC]\\+\\+"},
    {Take::kToken, "[cCfF]#"},
    {Take::kWord, W "+(?:_" W "+)*"},
    // Faces, and marks that are tokens together.
    {Take::kToken, R"(([<>]?[:;=][-o*']?[)(DPpO|\\\][{@])(?:(?![A-Za-z0-9])[\s\S]|$))"},
    {Take::kToken, R"([-^]_[-^~])"},
    {Take::kDrop, "[?!]"},
    {Take::kToken, R"([?!]{2,}|-{5,}|#{2,}|@{2,}|<<|>>|\\\*)"},
    {Take::kToken, R"(\*+|_+)"},
    {Take::kDrop, "(?:\\.{3}|\\.|-+|" A A ")"},
    {Take::kDrop,
     R"([,:;'"`]|[\x{AB}\x{BB}\x{2010}-\x{2015}\x{2018}\x{2019}\x{201B}-\x{201D}\x{2026}\x{2039}\x{203A}])"},
    {Take::kToken, R"([#$%&+=~^|\\/@<>()\[\]{}])"},
    {Take::kToken,
     R"([\x{A1}-\x{AA}\x{AC}\x{AE}-\x{B4}\x{B6}-\x{BA}\x{BC}-\x{BF}\x{D7}\x{F7}\x{2016}\x{2017}\x{201A}])"},
    {Take::kToken, R"([\x{201E}-\x{2023}\x{2030}-\x{2038}\x{203B}\x{203E}-\x{2042}\x{2044}\x{2070}-\x{208E}])"},
    {Take::kToken, R"([\x{20A0}\x{20A4}\x{20AC}\x{2100}-\x{214F}\x{2153}-\x{215E}\x{2190}-\x{2BFF}\x{3001}\x{3002}])"},
    {Take::kToken, R"([\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}])"},
    {Take::kDrop, R"([\s\S])"},
};

#undef L
#undef W
#undef A
#undef S
#undef CLITIC

}  // namespace

std::span<const PtbRule> ptb_rules() { return kRules; }

}  // namespace permafrost
