#include "core/weights/inspect.h"

#include <algorithm>
#include <map>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/utf8.h"

namespace permafrost {

namespace {
struct Totals {
  int64_t tensors = 0, elements = 0, bytes = 0;
  void add(const StoredTensor& tensor) {
    ++tensors;
    elements += tensor.shape.elements();
    bytes += tensor.bytes;
  }
};

std::map<std::string, Totals> totals_by_dtype(const WeightSource& source) {
  std::map<std::string, Totals> totals;
  for (const SourceTensor& tensor : source.tensors()) totals[tensor.stored.dtype_name].add(tensor.stored);
  return totals;
}

Totals totals_of(const WeightSource& source) {
  Totals totals;
  for (const SourceTensor& tensor : source.tensors()) totals.add(tensor.stored);
  return totals;
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

OrderedJson to_json(const Totals& totals) {
  return {{"tensors", totals.tensors}, {"elements", totals.elements}, {"bytes", totals.bytes}};
}
}  // namespace

std::string inspect_text(const WeightSource& source) {
  std::string text;
  for (const auto& opened : source.files()) {
    const TensorFile& file = *opened;
    text += concat(file.path(), "  ", file.file_bytes(), " bytes, ", file.tensors().size(), " tensors\n");
    for (const auto& [key, value] : file.metadata())
      text += concat("  metadata ", printable(key), " = ", printable(value), "\n");
  }
  size_t name_width = 4, shape_width = 5;
  for (const SourceTensor& tensor : source.tensors()) {
    name_width = std::max(name_width, tensor.stored.name.size());
    shape_width = std::max(shape_width, tensor.stored.shape.str().size());
  }
  text += concat(padded("name", name_width), "  dtype    ", padded("shape", shape_width), "  bytes\n");
  for (const auto& [stored, file] : source.tensors())
    text += concat(padded(stored.name, name_width), "  ", padded(stored.dtype_name, 7), "  ",
                   padded(stored.shape.str(), shape_width), "  ", stored.bytes, "\n");
  for (const auto& [dtype, totals] : totals_by_dtype(source))
    text += concat(dtype, ": ", totals.tensors, " tensors, ", totals.elements, " values, ", totals.bytes, " bytes\n");
  const Totals all = totals_of(source);
  return text + concat("total: ", all.tensors, " tensors, ", all.elements, " values, ", all.bytes, " bytes\n");
}

std::string inspect_json(const WeightSource& source) {
  OrderedJson files = OrderedJson::array(), tensors = files;
  for (const auto& file : source.files())
    files.push_back({{"path", file->path()},
                     {"bytes", file->file_bytes()},
                     {"tensors", file->tensors().size()},
                     {"metadata", file->metadata()}});
  for (const SourceTensor& tensor : source.tensors()) {
    const StoredTensor& stored = tensor.stored;
    const auto dims = stored.shape.dims();
    tensors.push_back({{"name", stored.name},
                       {"dtype", stored.dtype_name},
                       {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
                       {"elements", stored.shape.elements()},
                       {"bytes", stored.bytes},
                       {"file", source.file_of(tensor)}});
  }
  OrderedJson totals = to_json(totals_of(source));
  totals["by_dtype"] = OrderedJson::object();
  for (const auto& [dtype, sums] : totals_by_dtype(source)) totals["by_dtype"][dtype] = to_json(sums);
  const OrderedJson all{{"path", source.path()}, {"files", files}, {"tensors", tensors}, {"totals", totals}};
  return json_text(all, 2);
}

}  // namespace permafrost
