#pragma once
#include <string>
#include <vector>

#include "configs/config.pb.h"

namespace permafrost::config {

/// A configuration ready for use: overrides applied, sizes expanded, defaults written out, validated.
struct Resolved {
  Config config;
  std::string text;    ///< protobuf text of it; loading it again gives the same
  std::string sha256;  ///< of `text`
};

/// Reads a file of protobuf text and applies `--set` assignments in their order (see overrides.h).
/// Errors: kConfig with all problems at once: file and line or field path, what was expected, what came. kStorage never:
/// a file that cannot be read is a kConfig problem too, since it was named by the user.
Resolved load_config(const std::string& path, const std::vector<std::string>& overrides = {});

/// The same from text; `source` stands in messages for the file name.
Resolved resolve_config(const std::string& text, const std::string& source,
                        const std::vector<std::string>& overrides = {});

}  // namespace permafrost::config
