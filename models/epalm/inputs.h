#pragma once
#include <cstdint>
#include <vector>

#include "core/kernels/cross_entropy.h"
#include "core/tensor/tensor.h"
#include "models/epalm/epalm.h"

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

/// The inputs of build_epalm that depend on texts, as tensors of a plan.
struct EpalmTextInputs {
  Tensor input_ids, position_ids, lengths_before, lengths_after;
  Tensor open_lengths;  ///< undefined where the graph has none
  Tensor labels, row_weight;
};

/// Fills the inputs. Their T may be larger than batch.tokens (a longer bucket); what is behind is padding, which the
/// published VIS row sees up to batch.tokens only. Labels are shifted here: row r of the text predicts token r + 1; VIS
/// and prompts predict nothing.
/// Errors: kShapeMismatch when the tensors are not those of build_epalm for this configuration; kInvalidArgument for a
/// batch that is larger than the tensors or has lengths outside 0 .. tokens.
void fill_epalm_inputs(const EpalmConfig& config, const TextBatch& batch, int32_t pad_id, float row_weight,
                       const EpalmTextInputs& inputs);

/// Rows of OPT's position table: token t of a text has row t + 2, padding row 1. position_ids: (B, T) i32.
void fill_position_ids(const std::vector<int32_t>& lengths, const Tensor& position_ids);

/// Valid lengths from a mask (B, T) of 1 and 0. Errors: kData unless every row is ones, then zeros.
std::vector<int32_t> lengths_of_mask(const std::vector<int64_t>& mask, int64_t batch, int64_t tokens);

}  // namespace permafrost
