#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace permafrost {

/// The official normalisation of VQA answers (vqaEval.py of VQA v2), without what precedes it (clean_vqa_answer):
/// punctuation out or to a space, periods that no digit follows out (the first 32, as published), small letters, number
/// words to digits, articles out, contractions given their apostrophe, single spaces.
/// `\d` there and here is an ASCII digit; small letters are Unicode's simple ones.
std::string normalize_vqa_answer(std::string_view text);

/// Line feeds and tabs to spaces, white space at both ends out: what the official script does to every answer first.
std::string clean_vqa_answer(std::string_view text);

/// Official VQA accuracy of one question, 0 to 1: the mean over the people who answered of min(1, matches / 3) among
/// the *other* people's answers. Where all people gave the same answer, nothing is normalised and the prediction must
/// equal it as it stands (capitals included): published, and kept. Errors: kData for no answers.
double vqa_accuracy(std::string_view prediction, std::span<const std::string> answers);

/// A-OKVQA's direct answers, 0 to 1: min(1, equal answers / 3), nothing normalised, nobody left out.
/// Errors: kData for no answers.
double direct_answer_accuracy(std::string_view prediction, std::span<const std::string> answers);

/// Soft labels of VL-T5's files, answer to score: the score of the answer that equals the prediction once both are
/// normalised (the highest of several), else 0.
double soft_label_accuracy(std::string_view prediction, const std::map<std::string, double>& labels);

/// Equal, white space at both ends aside.
bool exact_match(std::string_view prediction, std::string_view answer);

/// Equal after normalize_vqa_answer on both, commas taken out before: how eP-ALM scores GQA and video questions.
bool normalized_exact_match(std::string_view prediction, std::string_view answer);

}  // namespace permafrost
