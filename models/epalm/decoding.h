#pragma once
#include <cstdint>

#include "core/graph/graph.h"
#include "models/epalm/epalm.h"

namespace permafrost {

/// What generation may keep of a text when it grows by a token.
enum class EpalmCache : uint8_t {
  kConstant,   ///< all keys and values: nothing that was computed changes
  kRefreshed,  ///< all but what the last layer reads of VIS, which one row more per step computes anew
  kNone,       ///< nothing exact: the published VIS row carries later words into several layers behind the window
};

/// The published VIS row sees later words, so its result behind the window changes with every token. With the window up
/// to the last layer nobody reads it; with one layer behind, one row of layer end - 1 is computed again per step; with
/// more, the layers behind would have to compute the whole text again. A causal row never changes.
EpalmCache epalm_cache(const EpalmConfig& config);

/// Sizes of a batch whose texts grow.
struct EpalmDecodingShape {
  int64_t batch = 1;   ///< B samples: images and prompts
  int64_t beams = 1;   ///< texts of a sample; rows are (sample, beam), R = B beams of them
  int64_t prompt = 1;  ///< tokens of the longest prompt
  int64_t tokens = 1;  ///< most tokens of a text that are fed: at least `prompt`; the last one generated is never fed

  int64_t rows() const { return batch * beams; }
};

/// The programs of generation. With a cache kPrefill runs once per batch, then kStep per token; without one kSee once,
/// then kWhole per token.
enum class EpalmProgram : uint8_t { kPrefill, kStep, kSee, kWhole };

/// One program of generation: forward only; same units and parameters as build_epalm's graph of this configuration, and
/// the same states, in the same order, in the two programs that work together.
///
/// kPrefill: images (B, C, S, S) f32; input_ids, position_ids (B, Tp) i32; lengths_before, lengths_after (B) i32 and
///   open_lengths (B) i32 as in build_epalm; cache_begin (B) i32, zeros; last_rows (B) i32, which of the
///   B (1 + P + Tp) rows predict. Value logits (B, 1, V) f32. Writes states cache.{layer}.keys|values
///   (R, P + T or 1 + P + T, d) and, where the cache is refreshed, vis.{0} (R, 1, d).
/// kStep: input_ids, position_ids (R, 1) i32; parents (R) i32: the row each text goes on from; used_before, used_after
///   (R) i32: tokens in the caches of layers without and with VIS, before this one; place_before, place_after (R) i32:
///   where the token goes; keys_before, keys_after (R) i32: 1 + the last place that is read; allowed_before
///   (R, 1, P + T), allowed_after (R, 1, 1 + P + T) u8: which keys the token sees; where the cache is refreshed also
///   allowed_vis (R, 2, 1 + P + T) u8, those of VIS and of the token, and vis_place (R) i32, zeros.
///   Value logits (R, 1, V) f32.
/// kSee: images, cache_begin (B). Writes states vis.{j} (R, 1, d).
/// kWhole: input_ids, position_ids (R, T) i32; lengths_before, lengths_after (R) i32: keys up to the last that anyone
///   sees; allowed_before (R, P + T, P + T), allowed_after (R, 1 + P + T, 1 + P + T) u8; last_rows (R) i32 of
///   R (1 + P + T). Value logits (R, 1, V) f32.
/// models/epalm/decoding_inputs.h fills all but images.
/// Errors: kConfig for kPrefill and kStep where epalm_cache says kNone, and for texts that do not fit the positions.
Graph build_epalm_decoding(const EpalmConfig& config, DType compute, const EpalmDecodingShape& shape,
                           EpalmProgram program);

}  // namespace permafrost
