#pragma once
#include <cstdint>
#include <filesystem>

namespace permafrost {

/// Writes a dataset in COCO's layout: images/ (every other one JPEG and PNG), captions.json with two captions per
/// image. Each image shows two plain shapes on a plain ground, and its captions say which, in which colour, and where;
/// so a model that looks at the image can say what one that does not cannot. A pure function of (count, size, seed).
/// Errors: kStorage naming the file.
void write_sample_photos(const std::filesystem::path& folder, int count, int size_pixels, uint64_t seed);

/// Writes vocab.json and merges.txt of a tokenizer over single bytes, with OPT's special tokens: 260 tokens, no merges.
/// Errors: kStorage naming the file.
void write_byte_tokenizer(const std::filesystem::path& folder);

}  // namespace permafrost
