#include "models/weight_mapper.h"

#include <charconv>

namespace permafrost {

std::optional<InBlock> in_block(std::string_view name, std::string_view blocks, char separator) {
  if (!name.starts_with(blocks)) return std::nullopt;
  name.remove_prefix(blocks.size());
  InBlock result;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), result.block);
  if (error != std::errc() || end == name.data() + name.size() || *end != separator || result.block < 0 ||
      result.block > 9999)
    return std::nullopt;
  result.rest = name.substr(static_cast<size_t>(end - name.data()) + 1);
  return result;
}

bool WeightMapper::can_be_written(const std::vector<RewritePart>& parts) {
  const StoredTensor& first = parts.front().tensor->stored;
  bool can = true;
  for (const RewritePart& part : parts) {
    const StoredTensor& stored = part.tensor->stored;
    if (!stored.dtype) {
      problems_.add("wrong dtype: '", stored.name, "' is ", stored.dtype_name, ", which cannot be written");
    } else if (first.dtype && stored.dtype != first.dtype) {
      problems_.add("wrong dtype: '", stored.name, "' is ", stored.dtype_name, "; must be ", first.dtype_name, ", as '",
                    first.name, "' is");
    } else {
      continue;
    }
    can = false;
  }
  return can;
}

void WeightMapper::keep(const std::string& name, const Shape& shape, std::vector<RewritePart> parts) {
  const SourceTensor* first = parts.front().tensor;
  const auto [place, fresh] = by_name_.emplace(name, first);
  if (!fresh) {
    problems_.add("ambiguous: '", name, "' is both '", place->second->stored.name, "' and '", first->stored.name, "'");
    return;
  }
  if (!can_be_written(parts)) return;
  for (const RewritePart& part : parts)
    if (part.tensor->stored.name != name) map_.renamed.emplace_back(part.tensor->stored.name, name);
  map_.tensors.push_back({name, shape, std::move(parts)});
}

void WeightMapper::require_alike(const SourceTensor& tensor, const std::string& rest) {
  const auto [place, fresh] = first_of_.emplace(rest, &tensor);
  const StoredTensor& first = place->second->stored;
  if (!fresh && first.shape != tensor.stored.shape)
    problems_.add("misshapen: '", tensor.stored.name, "' must be ", first.shape, ", as '", first.name, "' is; got ",
                  tensor.stored.shape);
}

void WeightMapper::add_unknown(const SourceTensor& tensor) {
  problems_.add("unknown: '", tensor.stored.name, "' ", tensor.stored.shape, ", so this is another architecture");
}

WeightMap WeightMapper::finish(std::string_view kind) {
  const std::string expected = concat(source_.path(), ": expected weights of kind ", kind);
  problems_.throw_if_any(expected);
  const std::vector<SourceTensor>& all = source_.tensors();
  if (map_.tensors.empty())
    fail(ErrorKind::kWeights, expected, "; got none of them among ", all.size(), " tensors",
         all.empty() ? "" : concat(", the first one '", all[0].stored.name, "'"));
  return std::move(map_);
}

}  // namespace permafrost
