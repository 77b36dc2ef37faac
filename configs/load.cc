#include "configs/load.h"

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "configs/fields.h"
#include "configs/inherit.h"
#include "configs/overrides.h"
#include "configs/parse.h"
#include "configs/sizes.h"
#include "configs/validate.h"
#include "core/base/sha256.h"

namespace permafrost::config {

Resolved load_config(const std::string& path, const std::vector<std::string>& overrides, const Check& check) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  if (stream) text << stream.rdbuf();
  if (!stream || stream.bad() || text.fail())
    fail(ErrorKind::kConfig, "config: expected a readable file in protobuf text; got '", path, "'");
  return resolve_config(text.str(), path, overrides, check);
}

Resolved resolve_config(const std::string& text, const std::string& source, const std::vector<std::string>& overrides,
                        const Check& check) {
  Resolved resolved;
  Problems problems;
  parse_text(text, source, resolved.config, problems);
  for (const std::string& assignment : overrides) apply_override(assignment, resolved.config, problems);
  expand_sizes(resolved.config, problems);
  inherit_data(resolved.config, problems);
  fill_defaults(resolved.config);
  validate(resolved.config, problems);
  const bool model_is_sound =
      std::ranges::none_of(problems.lines(), [](const std::string& line) { return line.starts_with("model"); });
  if (check && model_is_sound) check(resolved.config, problems);
  problems.throw_if_any(source);
  if (!google::protobuf::TextFormat::PrintToString(resolved.config, &resolved.text))
    fail(ErrorKind::kInternal, "config: cannot print ", source);
  resolved.sha256 = permafrost::sha256(resolved.text.data(), resolved.text.size());
  return resolved;
}

}  // namespace permafrost::config
