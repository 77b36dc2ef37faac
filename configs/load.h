#pragma once
#include <functional>
#include <string>
#include <vector>

#include "configs/config.pb.h"
#include "configs/problems.h"

namespace permafrost::config {

/// A configuration ready for use: overrides applied, sizes expanded, defaults written out, validated.
struct Resolved {
  Config config;
  std::string text;    ///< protobuf text of it; loading it again gives the same
  std::string sha256;  ///< of `text`
};

/// Looks for problems that a configuration alone does not show: names of parameters, say. Called when the model section
/// has no problem, so that a model can be built from it.
using Check = std::function<void(const Config& config, Problems& problems)>;

/// Reads a file of protobuf text and applies `--set` assignments in their order (see overrides.h).
/// Errors: kConfig with all problems at once: file and line or field path, what was expected, what came. kStorage
/// never: a file that cannot be read is a kConfig problem too, since it was named by the user.
Resolved load_config(const std::string& path, const std::vector<std::string>& overrides = {}, const Check& check = {});

/// The same from text; `source` stands in messages for the file name.
Resolved resolve_config(const std::string& text, const std::string& source,
                        const std::vector<std::string>& overrides = {}, const Check& check = {});

}  // namespace permafrost::config
