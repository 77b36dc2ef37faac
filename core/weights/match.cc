#include "core/weights/match.h"

#include <algorithm>
#include <map>

#include "core/base/check.h"
#include "core/weights/convert.h"
#include "core/weights/problems.h"

namespace permafrost {

namespace {
/// The name itself, and with each optional prefix added or taken away; no name twice.
std::vector<std::string> variants(const std::string& name, const std::vector<std::string>& prefixes) {
  std::vector<std::string> result{name};
  for (const std::string& prefix : prefixes) {
    result.push_back(prefix + name);
    if (name.starts_with(prefix)) result.push_back(name.substr(prefix.size()));
  }
  return result;
}

bool is_parameter_dtype(const StoredTensor& stored) { return stored.dtype && can_convert(*stored.dtype, DType::kF32); }

class Matcher {
 public:
  Matcher(const WeightSource& source, const MatchRules& rules) : source_(source), rules_(rules) {}

  void match(const RequiredTensor& required) {
    std::vector<std::string> names = variants(required.name, rules_.optional_prefixes);
    for (const std::string& other : required.other_names) {
      const auto more = variants(other, rules_.optional_prefixes);
      names.insert(names.end(), more.begin(), more.end());
    }
    const SourceTensor* tensor = nullptr;
    for (const std::string& name : names) {
      const SourceTensor* found = source_.find(name);
      if (!found || found == tensor) continue;
      const auto [user, fresh] = used_.emplace(name, required.name);
      if (!fresh) problems_.add("ambiguous: '", name, "' is both '", user->second, "' and '", required.name, "'");
      if (tensor)
        problems_.add("ambiguous: '", required.name, "' is both '", tensor->stored.name, "' and '", name, "'");
      if (!tensor) tensor = found;
    }
    if (!tensor) {
      problems_.add("missing: '", required.name, "' ", required.shape);
    } else if (tensor->stored.shape != required.shape) {
      problems_.add("misshapen: '", required.name, "' must be ", required.shape, "; got ", tensor->stored.shape,
                    place(*tensor));
    } else if (!is_parameter_dtype(tensor->stored)) {
      problems_.add("wrong dtype: '", required.name, "' must be F32, F16, BF16 or F64; got ", tensor->stored.dtype_name,
                    place(*tensor));
    } else {
      report_.matches.push_back({required.name, tensor});
      report_.elements += tensor->stored.shape.elements();
      report_.file_bytes += tensor->stored.bytes;
    }
  }

  void check_tied(const TiedTensor& tied) {
    const auto matched = std::ranges::find(report_.matches, tied.name, &LoadReport::Match::name);
    for (const std::string& name : variants(tied.alias, rules_.optional_prefixes)) {
      const SourceTensor* alias = source_.find(name);
      if (!alias || !used_.emplace(name, tied.alias).second) continue;
      if (matched == report_.matches.end()) continue;  // the parameter itself is the problem, already named
      const SourceTensor& parameter = *matched->tensor;
      if (alias->stored.shape != parameter.stored.shape || !is_parameter_dtype(alias->stored)) {
        problems_.add("untied: '", name, "' must equal '", tied.name, "' ", parameter.stored.shape, "; got ",
                      alias->stored.shape, " ", alias->stored.dtype_name, place(*alias));
      } else {
        matched->aliases.push_back(alias);
        report_.tied.push_back(name);
      }
    }
  }

  void sort_out_rest() {
    for (const SourceTensor& tensor : source_.tensors()) {
      const std::string& name = tensor.stored.name;
      if (used_.contains(name)) continue;
      if (is_known_unused(name)) {
        report_.unused.push_back(name);
      } else {
        problems_.add("extra: '", name, "' ", tensor.stored.shape, " ", tensor.stored.dtype_name, place(tensor));
      }
    }
  }

  LoadReport finish() {
    problems_.throw_if_any(source_.path() + ": weights must fit the model exactly");
    return std::move(report_);
  }

 private:
  bool is_known_unused(const std::string& name) const {
    for (const std::string& variant : variants(name, rules_.optional_prefixes))
      for (const std::string& pattern : rules_.known_unused)
        if (matches_pattern(variant, pattern)) return true;
    return false;
  }

  /// Which shard, where there is more than one file.
  std::string place(const SourceTensor& tensor) const {
    return source_.files().size() > 1 ? concat(" [", source_.file_of(tensor), "]") : "";
  }

  const WeightSource& source_;
  const MatchRules& rules_;
  std::map<std::string, std::string> used_;  // name in the file -> required name
  ProblemList problems_;
  LoadReport report_;
};
}  // namespace

bool matches_pattern(std::string_view name, std::string_view pattern) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name == pattern;
  if (!name.starts_with(pattern.substr(0, star))) return false;
  name.remove_prefix(star);
  pattern.remove_prefix(star + 1);
  // The piece up to the next star fits best where it fits first; the last piece must end the name.
  for (size_t next = pattern.find('*'); next != std::string_view::npos; next = pattern.find('*')) {
    const size_t at = name.find(pattern.substr(0, next));
    if (at == std::string_view::npos) return false;
    name.remove_prefix(at + next);
    pattern.remove_prefix(next + 1);
  }
  return name.ends_with(pattern);
}

std::string LoadReport::str() const {
  std::string text = concat(matches.size(), " tensors, ", elements, " values, ", file_bytes, " bytes");
  const auto list = [&](const char* words, const std::vector<std::string>& names) {
    if (names.empty()) return;
    text += concat("; ", words);
    for (size_t i = 0; i < names.size(); ++i) text += (i ? ", " : " ") + names[i];
  };
  list("known and not used:", unused);
  list("stored twice:", tied);
  return text;
}

LoadReport match_parameters(const std::vector<RequiredTensor>& required, const WeightSource& source,
                            const MatchRules& rules) {
  Matcher matcher(source, rules);
  for (const RequiredTensor& tensor : required) matcher.match(tensor);
  for (const TiedTensor& tied : rules.tied) matcher.check_tied(tied);
  matcher.sort_out_rest();
  return matcher.finish();
}

}  // namespace permafrost
