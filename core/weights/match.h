#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/shape.h"
#include "core/weights/source.h"

namespace permafrost {

/// A parameter that the weights must give, under its full published name or one of the other names.
struct RequiredTensor {
  std::string name;
  Shape shape;
  std::vector<std::string> other_names = {};
};

/// A tensor that may be stored besides the parameter it repeats.
struct TiedTensor {
  std::string alias;  ///< e.g. "lm_head.weight"
  std::string name;   ///< the required tensor it must equal, e.g. "model.decoder.embed_tokens.weight"
};

struct MatchRules {
  /// Each of these may be missing from or added to the front of any name of the file, e.g. "model.".
  std::vector<std::string> optional_prefixes = {};
  /// Names that may be there and are not read, e.g. "head.*"; '*' stands for any characters.
  std::vector<std::string> known_unused = {};
  std::vector<TiedTensor> tied = {};
};

/// What was matched with what. Points into the source, which must outlive it.
struct LoadReport {
  struct Match {
    std::string name;
    const SourceTensor* tensor = nullptr;
    std::vector<const SourceTensor*> aliases = {};  ///< stored besides; their values must be equal (see load_ranges)
  };
  std::vector<Match> matches;       ///< in the order of the required tensors
  std::vector<std::string> unused;  ///< known unused tensors that the file has, under its names
  std::vector<std::string> tied;    ///< stored aliases, under their names in the file
  int64_t elements = 0;             ///< of all matches
  int64_t file_bytes = 0;           ///< of all matches, as stored

  /// A line or two for the log.
  std::string str() const;
};

/// Strict: every required tensor is there, once, with its shape and a floating dtype (F32, F16, BF16, F64), and the
/// file has nothing else but known unused tensors and tied ones that have the shape of their parameter. Looks at
/// headers only: whether a tied tensor's values equal its parameter's is found by load_ranges, on the way. Errors:
/// kWeights naming every missing, extra, misshapen, ambiguous or untied tensor in one message.
LoadReport match_parameters(const std::vector<RequiredTensor>& required, const WeightSource& source,
                            const MatchRules& rules = {});

/// '*' in the pattern stands for any characters, none included; everything else for itself.
bool matches_pattern(std::string_view name, std::string_view pattern);

}  // namespace permafrost
