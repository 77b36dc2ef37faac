#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/kernels/cross_entropy.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// The texts of one micro-batch on the host, right-padded. A sample of length 0 is a placeholder: it takes part in the
/// computation and not in the loss.
struct TextBatch {
  int64_t batch = 0;
  int64_t tokens = 0;            ///< of the longest text
  std::vector<int32_t> ids;      ///< (batch, tokens)
  std::vector<int32_t> lengths;  ///< (batch), 0 .. tokens
  std::vector<int32_t> labels;   ///< (batch, tokens), not shifted: the token itself, or kIgnoredLabel

  /// From token lists; labels are set by label_all. `batch` rows, those behind `texts` placeholders.
  static TextBatch of(const std::vector<std::vector<int32_t>>& texts, int64_t batch, int32_t pad_id);
};

/// Every token of the text is a label (scope ALL).
void label_all(TextBatch& batch);
/// Only tokens behind the last `answer_id` of each sample are (scope ANSWER). Errors: kData naming the first sample
/// without one; placeholders need none.
void label_answers(TextBatch& batch, int32_t answer_id);

/// What the loss of a global batch is divided by: sums over its micro-batches, known before any of them is computed.
struct LossCounts {
  int64_t samples = 0;  ///< without placeholders
  int64_t tokens = 0;   ///< labels that are predicted: the first token of a text never is
  LossCounts& operator+=(const LossCounts& other);
};
LossCounts count_loss(const TextBatch& batch);

struct LossWeighting {
  enum class Kind : uint8_t {
    kSampleSum,  ///< scale * mean over samples of the sum over their tokens (published, with 0.1)
    kTokenMean,  ///< mean over tokens; scale is not used
  };
  Kind kind = Kind::kSampleSum;
  double scale = 0.1;

  /// Weight of each predicted token: scale / samples, or 1 / tokens; 0 when there is none. kSampleSum adds nothing for
  /// samples without labels, and counts them.
  float row_weight(const LossCounts& global) const;
};

/// Rows of OPT's position table: token t of a text has row t + 2, padding row 1. position_ids: (B, T) i32. With `slots`
/// tokens that stand before every text and have positions too: (B, slots + T), counted from the first of those.
void fill_position_ids(const std::vector<int32_t>& lengths, const Tensor& position_ids, int64_t slots = 0);

/// Valid lengths from a mask (B, T) of 1 and 0. Errors: kData unless every row is ones, then zeros.
std::vector<int32_t> lengths_of_mask(const std::vector<int64_t>& mask, int64_t batch, int64_t tokens);

/// input_ids (B, T) i32, T >= batch.tokens: the ids, pad_id behind them.
void fill_ids(const TextBatch& batch, int32_t pad_id, const Tensor& input_ids);

/// Labels and weights of the rows that predict: token t of a text (t >= 1) is predicted by row `first_row` + t - 1.
/// labels (B, R) i32, row_weight (B, R) f32; rows that predict nothing get kIgnoredLabel and 0.
void fill_labels(const TextBatch& batch, float row_weight, int64_t first_row, const Tensor& labels,
                 const Tensor& row_weights);

/// Throws kShapeMismatch unless `tensor` is there and has this shape and dtype. who: "epalm inputs".
void check_input(std::string_view who, std::string_view name, const Tensor& tensor, const TensorSpec& spec);

/// The inputs that every model of texts has, as tensors of a plan.
struct TextInputs {
  Tensor input_ids, position_ids, labels, row_weight;
};

/// Checks them and what shall be written into them. Throws kInvalidArgument unless the lists of `batch` have the sizes
/// that batch and tokens say, lengths lie in 0 .. tokens, and all fits (B, T); kShapeMismatch unless input_ids and
/// position_ids are (B, T) i32, labels (B, R) i32 and row_weight (B, R) f32, R being T - 1 or, where all values are
/// kept, slots + T: `slots` rows stand in front of the text. The first `positioned` of the slots have positions too:
/// position_ids are (B, positioned + T).
void check_text_inputs(std::string_view who, const TextBatch& batch, const TextInputs& inputs, int64_t slots,
                       int64_t positioned = 0);

}  // namespace permafrost
