#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/weights/safetensors.h"
#include "models/weight_maps.h"

namespace permafrost {

// What `weights import` and `weights export` share.

/// The dtype that --dtype asks for: f32, bf16 or f16; with `may_keep` also "keep", which is empty. Errors: kConfig for
/// another word.
std::optional<DType> asked_dtype(const std::string& word, bool may_keep = true);

/// The map of a source, after a report of what is renamed and dropped went to standard output. Errors: those of
/// map_weights, and kWeights naming every missing tensor; nothing is written then.
WeightMap map_and_report(const WeightSource& source, WeightKind kind);

/// Declarations for a writer: floats as `dtype` (empty: as stored), anything else as stored.
std::vector<TensorDeclaration> declarations_of(const WeightMap& map, std::optional<DType> dtype);

/// Writes the mapped tensors with what the source says of itself as metadata, and says so on standard output. Wide
/// dtypes come first, so that every tensor is aligned. Memory: see rewrite. Errors: kStorage when room is short or
/// writing fails; kWeights from values that do not fit.
void write_safetensors(const WeightSource& source, WeightMap map, std::optional<DType> dtype, const std::string& path);

/// Metadata of all files of a source, of two values the first; without what TorchArchive says of the file itself.
std::map<std::string, std::string> metadata_of(const WeightSource& source);

}  // namespace permafrost
