#pragma once
#include <cstdint>

#include "core/tensor/tensor.h"
#include "models/epalm/epalm.h"
#include "models/text_batch.h"

namespace permafrost {

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

}  // namespace permafrost
