#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/weights/rewrite.h"

namespace permafrost {

/// Under which names published weights come, and under which we and others read them.
enum class WeightKind {
  kRaw,         ///< everything that can be written (F32, F16, BF16, F64, I64, I32, U8), as it is; the rest is dropped
  kOpt,         ///< an OPT decoder: transformers' names, model.decoder.*
  kTimmVit,     ///< a vision transformer: timm's names
  kTimmVitNpz,  ///< the same from the arrays of the JAX originals (augreg .npz), turned as timm turns them
  kEpalm,       ///< what eP-ALM trains: connector.*, prompt_module.*, *adapter*
};

/// "raw", "opt", "timm_vit", "timm_vit_npz", "epalm". Errors: kConfig for another word.
WeightKind weight_kind(std::string_view word);
std::string_view to_string(WeightKind kind);

/// What becomes of every tensor of a source.
struct WeightMap {
  std::vector<RewrittenTensor> tensors;                      ///< in the order in which the source has their first parts
  std::vector<std::pair<std::string, std::string>> renamed;  ///< from, to; only names that change
  std::vector<std::string> dropped;                          ///< "name (why)"
  std::vector<std::string> missing;                          ///< required names that nothing gives
};

/// Names of `source` under those of `kind`. Our own names of backbones are known: `text.X` for kOpt and `vision.X` for
/// kTimmVit lose that prefix; where a file has such names, only they count. Other prefixes that publishers put in front
/// (`model.`, `model.decoder.`, `decoder.`, `module.`) may be there or not.
/// The architecture is read off the names: as many layers or blocks as the highest number says, each of which must have
/// all its tensors (what lacks is in `missing`), alike in shape. Tensors of a classifier's head stay; an lm_head that
/// repeats the embedding is dropped after its values were compared; whatever else the kind does not know is dropped if
/// the model computes the same without it.
/// Errors: kWeights: an lm_head of its own; then all problems of names, shapes and dtypes at once: two tensors for one
/// name, a tensor in a block that the kind does not know (another architecture), shapes that differ between blocks, a
/// dtype that cannot be written, dtypes that differ within a stacked tensor; or nothing of that kind.
WeightMap map_weights(const WeightSource& source, WeightKind kind);

}  // namespace permafrost
