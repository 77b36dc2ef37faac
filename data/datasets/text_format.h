#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/datasets/dataset.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

/// What a model is to say about an image.
enum class TextTask {
  kCaptions,  ///< caption, end token
  kVqa,       ///< question, "?", `</a>`, answer, end token
  kClasses,   ///< nothing: class labels of the image
};
std::string_view to_string(TextTask task);

/// The token between question and answer, an added token of the tokenizer (id 50265 for OPT).
inline constexpr std::string_view kAnswerToken = "</a>";

/// Ids of a sample as published, prompt and what may follow it; joined they are a text that is trained on.
///   captions: prefix | caption without white space at its ends and without end tokens inside, end token
///   VQA:      prefix, question, "?", `</a>` | answer without "[SEP]" and end tokens, end token; one for each answer
/// The question is used raw: most end in "?", so the model sees "??". kClasses: no text at all.
/// Errors: kConfig when VQA is asked of a tokenizer without `</a>`.
TextPieces text_pieces(const Tokenizer& tokenizer, TextTask task, const Sample& sample);

/// Prompt of a question, for generation.
std::vector<int32_t> question_ids(const Tokenizer& tokenizer, std::string_view question);
/// A caption as trained on. OPT: `</s>` caption `</s>`.
std::vector<int32_t> caption_ids(const Tokenizer& tokenizer, std::string_view caption);

}  // namespace permafrost
