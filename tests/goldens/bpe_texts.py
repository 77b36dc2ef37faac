"""Awkward texts for byte-level BPE, by name."""

WORDS = {
    "empty": "", "space": " ", "two_spaces": "  ", "three_spaces": "   ", "newline": "\n", "two_newlines": "\n\n", "tab": "\t", "crlf": "a\r\nb", "mixed_white": " \t \n  \r\n x",
    "one_letter": "a", "published": "I like you.", "leading_space": " hello", "trailing_space": "hello ", "both_spaces": "  hello  ", "inner_spaces": "hello   world", "inner_spaces_many": "a" + " " * 17 + "b",
    "newline_inside": "first line\nsecond line", "newline_indent": "def f(x):\n    return x + 1\n\n\tpass", "space_newline": "end \n start", "newline_space": "end\n start", "spaces_newline_spaces": "a  \n  b",
    "sentence": "A close up of a skateboard on a bed.", "question": "what is the woman watching??", "caption": "Two dogs, one brown and one white, run across the grass.", "upper": "THE QUICK BROWN FOX",
    "mixed_case": "iPhone McDonald eBay NASA's LaTeX", "camel": "EngineDebug ItemTracker externalToEVA", "vocab_word": " strutConnector", "made_up": "madeupword0000 madeupword0001", "glitch": "SolidGoldMagikarp",
    "hyphens": "well-known state-of-the-art", "dashes": "a - b -- c \u2013 d \u2014 e", "quotes": '"double" \'single\' \u201ccurly\u201d \u2018these\u2019', "brackets": "(a) [b] {c} <d> <<e>>", "ellipsis": "wait... what\u2026",
    "url": "https://www.example.org/a/b?c=d&e=%20f#g", "email": "first.last+tag@example.co.uk", "path": "C:\\Users\\me\\x.txt /usr/lib/x.so.1", "code": "for(int i=0;i<n;++i){a[i]*=2;}", "html": "<p>text</p><br/>",
    "math": "x^2 + y^2 = z^2 \u2260 \u221e \u2264 \u2265 \u00b1 \u00d7", "currency": "$5.00 \u20ac7,50 \u00a39 \u00a5100", "percent": "100% 3.5\u2030", "punctuation_run": "!!!???...;;;,,,", "symbols": "@#$%^&*()_+-=[]{}|;':\",./<>?`~",
    "underscores": "snake_case __init__ _", "hash_tags": "#tag @user #1", "repeat_punct": "=" * 40, "repeat_dash": "-" * 33, "repeat_letter": "aaaaaaaaaaaaaaaaaaaaaaaaa", "alternating": "ababababababababababab",
}
CONTRACTIONS = {
    "contractions": "I'm you're he's we've they'll I'd don't", "contractions_upper": "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T", "contractions_mixed": "I'Ve it'S", "contraction_alone": "'s 't 're 've 'm 'll 'd", "apostrophe_word": "rock 'n' roll",
    "apostrophe_no_space": "a's's's", "apostrophe_end": "dogs'", "double_apostrophe": "''tis''s", "curly_contraction": "it\u2019s don\u2019t", "apostrophe_digit": "the '90s 'd5", "apostrophe_longer": "'sing 'tree 'really 'very 'my 'llama 'day",
}
DIGITS = {
    "digit": "7", "digits": "1234567890", "digits_spaced": "1 2 3 12 123 1234", "digit_letter": "3D 4k mp3 v2.0 R2D2", "decimal": "3.14159 1,000,000", "date": "2023-03-21 21/03/2023", "time": "12:34:56", "long_number": "9" * 50,
    "arabic_digits": "\u0661\u0662\u0663", "devanagari_digits": "\u0967\u0968\u0969", "fractions": "\u00bd \u00be 1\u00bd", "superscripts": "x\u00b2 y\u00b3 H\u2082O", "roman_numerals": "\u2167 \u216b", "circled": "\u2460\u2461\u2462", "fullwidth_digits": "\uff11\uff12\uff13", "hex": "0xDEADBEEF 0b1010",
}
SCRIPTS = {
    "accents": "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00dcber Stra\u00dfe \u00c5ngstr\u00f6m", "accents_decomposed": "cafe\u0301 nai\u0308ve", "combining_stack": "Z\u0351\u036b\u0343a\u0328l\u0334g\u0321o\u035c", "combining_alone": "\u0301", "combining_space": " \u0301x",
    "cjk": "\u6211\u559c\u6b22\u4f60", "cjk_punctuation": "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "cjk_mixed": "iPhone\u624b\u673a 15 Pro", "japanese": "\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca", "korean": "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "korean_jamo": "\u1112\u1161\u11ab",
    "russian": "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "greek": "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5", "arabic": "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "hebrew": "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "hindi": "\u0928\u092e\u0938\u094d\u0924\u0947", "thai": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "turkish": "\u0130stanbul \u0131\u015f\u0131k", "vietnamese": "Ti\u1ebfng Vi\u1ec7t", "polish": "za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "ligatures": "\ufb01ne \ufb02ow", "gothic": "\U00010330\U00010331\U00010332", "math_letters": "\U0001d400\U0001d401 \U0001d7d8", "rare_cjk": "\U00020000\U0002a6d6",
    "rtl_marks": "a\u200fb\u200ec", "titlecase": "\u01c5 \u01c8", "modifier_letters": "\u02b0\u02b2 \u02bc", "letter_numbers": "\u3007\u3021\u4e00\u4e8c",
}
EMOJI = {
    "emoji": "\U0001f600", "emoji_text": "good \U0001f44d morning", "emoji_skin": "\U0001f44d\U0001f3fd", "emoji_family": "\U0001f468\u200d\U0001f469\u200d\U0001f467", "emoji_flag": "\U0001f1eb\U0001f1f7", "emoji_run": "\U0001f602\U0001f602\U0001f602", "emoji_heart": "\u2764\ufe0f I \u2665 it", "emoji_keycap": "1\ufe0f\u20e3", "replacement": "\ufffd", "private_use": "\ue000\uf8ff", "last_code_point": "\U0010ffff", "noncharacter": "\uffff",
}
WHITE = {
    "nbsp": "a\u00a0b", "nbsp_run": "a\u00a0\u00a0 b", "ideographic_space": "a\u3000b", "thin_space": "a\u2009b\u202fc", "line_separator": "a\u2028b\u2029c", "next_line": "a\u0085b", "vertical_tab": "a\x0bb\x0cc", "separators_1c": "a\x1cb\x1d\x1e\x1fc", "zero_width_space": "a\u200bb", "bom": "\ufeffhello",
    "mongolian_separator": "a\u180eb", "nul": "a\x00b", "controls": "\x01\x02\x7f", "backspace": "a\x08b", "soft_hyphen": "co\u00adop", "word_joiner": "a\u2060b", "white_at_end": "end \u00a0", "spaces_then_tab": "a   \tb", "tabs": "\t\t\tx",
}
SPECIALS = {
    "eos_inside": "a </s> b", "eos_tight": "a</s>b", "eos_end": "A dog runs.</s>", "eos_only": "</s>", "eos_twice": "</s></s>", "bos_inside": "x <s> y", "pad_inside": "x <pad> y", "pad_tight": "x<pad><pad>", "unk_inside": "x <unk> y", "mask_inside": "x <mask> y", "mask_tight": "x<mask>y",
    "mask_spaces": "x   <mask>   y", "endoftext_inside": "x <|endoftext|> y", "endoftext_tight": "x<|endoftext|>y", "almost_special": "</s </ s> <pad <|endoftext| </S>", "nested_special": "<</s>>", "split_special": "<pa<pad>d>", "newline_special": "a\n</s>\nb",
    "answer": "what is this??</a>dog</s>", "answer_prompt": "what is this??</a>", "answer_spaces": "what is this??  </a>  dog </s>", "answer_newlines": "q?\n\t</a>\n\ta", "answer_wide_white": "q?\u00a0\u3000</a>\u2003a", "answer_only": "</a>", "answer_twice": "a </a> b </a> c", "answer_adjacent": "</a></a> </a>",
    "answer_between_white": " </a> ", "answer_after_eos": "</s> </a> x", "answer_before_eos": "x </a> </s> y", "answer_separator_1c": "q\x1c</a>\x1fa", "answer_zero_width": "q\u200b</a>\u200ba", "answer_next_line": "q\u0085</a>\u0085a", "answer_upper": "q</A>a", "answer_empty_answer": "q??</a></s>",
}
LONG = {
    "long_word": "pneumonoultramicroscopicsilicovolcanoconiosis" * 6, "long_letters": "x" * 500, "long_random_word": "qzjxkvbwpfhmgtdlrncsyueoai" * 12, "long_spaces": " " * 300, "long_newlines": "\n" * 70, "long_unicode_word": "\u00e4\u00f6\u00fc" * 60, "long_emoji": "\U0001f680" * 40, "long_punctuation": "?!" * 90,
}

TEXTS = WORDS | CONTRACTIONS | DIGITS | SCRIPTS | EMOJI | WHITE | SPECIALS | LONG
