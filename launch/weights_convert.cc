#include "launch/weights_convert.h"

#include <algorithm>
#include <iostream>

#include "core/base/check.h"
#include "core/weights/convert.h"
#include "core/weights/problems.h"

namespace permafrost {

namespace {

DType stored_dtype(const RewrittenTensor& tensor) { return *tensor.parts[0].tensor->stored.dtype; }

DType dtype_in_file(const RewrittenTensor& tensor, std::optional<DType> asked) {
  const DType stored = stored_dtype(tensor);
  return asked && can_convert(stored, *asked) ? *asked : stored;
}

}  // namespace

std::optional<DType> asked_dtype(const std::string& word, bool may_keep) {
  if (may_keep && word == "keep") return std::nullopt;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    if (to_string(dtype) == word) return dtype;
  fail(ErrorKind::kConfig, "weights: --dtype must be ", may_keep ? "keep, " : "", "f32, bf16 or f16; got ", word);
}

WeightMap map_and_report(const WeightSource& source, WeightKind kind) {
  WeightMap map = map_weights(source, kind);
  std::cout << source.path() << ": " << source.tensors().size() << " tensors, of kind " << to_string(kind) << ": "
            << map.renamed.size() << " renamed, " << map.dropped.size() << " dropped, " << map.missing.size()
            << " missing\n";
  for (const auto& [from, to] : map.renamed) std::cout << "  renamed: " << from << " -> " << to << '\n';
  for (const std::string& name : map.dropped) std::cout << "  dropped: " << name << '\n';
  std::cout << std::flush;
  ProblemList problems;
  for (const std::string& name : map.missing) problems.add("missing: '", name, "'");
  problems.throw_if_any(concat(source.path(), ": expected a whole model of kind ", to_string(kind)));
  return map;
}

std::vector<TensorDeclaration> declarations_of(const WeightMap& map, std::optional<DType> dtype) {
  std::vector<TensorDeclaration> declarations;
  for (const RewrittenTensor& tensor : map.tensors)
    declarations.push_back({tensor.name, {tensor.shape, dtype_in_file(tensor, dtype)}});
  return declarations;
}

std::map<std::string, std::string> metadata_of(const WeightSource& source) {
  std::map<std::string, std::string> metadata;
  for (const auto& file : source.files()) metadata.insert(file->metadata().begin(), file->metadata().end());
  std::erase_if(metadata, [](const auto& entry) { return entry.first.starts_with("torch."); });
  return metadata;
}

void write_safetensors(const WeightSource& source, WeightMap map, std::optional<DType> dtype, const std::string& path) {
  std::ranges::stable_sort(map.tensors, std::greater<>(),
                           [&](const RewrittenTensor& tensor) { return size_of(dtype_in_file(tensor, dtype)); });
  const std::vector<TensorDeclaration> declarations = declarations_of(map, dtype);
  std::map<std::string, std::string> metadata = metadata_of(source);
  metadata["format"] = "pt";  // transformers asks for it
  const int64_t bytes = safetensors_file_bytes(declarations, metadata);
  require_free_space(directory_of(path), bytes);
  SafetensorsWriter writer(path, declarations, metadata);
  for (size_t i = 0; i < map.tensors.size(); ++i)
    rewrite(source, map.tensors[i], declarations[i].spec.dtype, [&](auto data) { writer.write(data); });
  writer.finish();
  std::cout << "wrote " << path << ": " << map.tensors.size() << " tensors, " << bytes << " bytes\n";
}

}  // namespace permafrost
