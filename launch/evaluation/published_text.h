#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "data/datasets/text_format.h"
#include "data/tokenizer/tokenizer.h"

namespace permafrost {

/// What the released code makes of a generated text, prompt included.
///   captions: what stands between the first and the second end token
///   VQA:      what stands behind `</a>`, without padding and end tokens (the space that decoding puts behind `</a>`
///             stays)
/// generated: without the end token.
std::string published_text(const Tokenizer& tokenizer, TextTask task, std::span<const int32_t> prompt,
                           std::span<const int32_t> generated);

}  // namespace permafrost
