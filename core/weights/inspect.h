#pragma once
#include <string>

#include "core/weights/source.h"

namespace permafrost {

/// A table of everything a source holds: files, metadata, every tensor (name, dtype, shape, bytes), totals per dtype.
std::string inspect_text(const WeightSource& source);

/// The same as JSON: `path`, `files` [{path, bytes, tensors, metadata}], `tensors` [{name, dtype, shape, elements,
/// bytes, file}], `totals` {tensors, elements, bytes, by_dtype {<dtype>: {tensors, elements, bytes}}}.
std::string inspect_json(const WeightSource& source);

}  // namespace permafrost
