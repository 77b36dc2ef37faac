#include "core/weights/rewrite.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/weights/load.h"
#include "core/weights/load_ranges.h"
#include "core/weights/strided.h"

namespace permafrost {

namespace {

constexpr int64_t kPieceElements = int64_t{1} << 18;

void rewrite_as_it_is(const WeightSource& source, const SourceTensor& tensor, DType to, const ByteSink& sink) {
  const int64_t elements = tensor.stored.shape.elements();
  std::vector<std::byte> piece(narrow<size_t>(std::min(kPieceElements, elements) * size_of(to)));
  for (int64_t first = 0; first < elements; first += kPieceElements) {
    const auto part = std::span(piece).first(narrow<size_t>(std::min(kPieceElements, elements - first) * size_of(to)));
    load_slice(source, tensor, first, to, part);
    sink(part);
  }
}

/// The stored tensor as a view with its axes in the order of the part.
StridedView in_order(const Shape& shape, const std::vector<int>& order) {
  std::vector<int64_t> strides(order.size()), extents, moved;
  int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = stride;
    stride *= shape[i];
  }
  for (const int axis : order) {
    extents.push_back(shape[axis]);
    moved.push_back(strides[static_cast<size_t>(axis)]);
  }
  return {Shape(std::span<const int64_t>(extents)), moved};
}

void rewrite_in_order(const WeightSource& source, const RewritePart& part, DType to, const ByteSink& sink) {
  const StoredTensor& stored = part.tensor->stored;
  const int64_t elements = stored.shape.elements();
  require_range(source, *part.tensor, 0, elements, to);
  const DType from = *stored.dtype;
  std::vector<std::byte> whole(narrow<size_t>(stored.bytes));
  source.read(*part.tensor, 0, whole);
  const StridedView view = in_order(stored.shape, part.order);
  const int64_t most = std::min(kPieceElements, elements);
  std::vector<std::byte> gathered(narrow<size_t>(most * size_of(from))), converted(narrow<size_t>(most * size_of(to)));
  ConvertStatistics statistics;
  for (int64_t first = 0; first < elements; first += kPieceElements) {
    const int64_t count = std::min(kPieceElements, elements - first);
    view.gather(whole.data(), size_of(from), first, count, gathered.data());
    statistics.add(convert_block(from, gathered.data(), to, converted.data(), count));
    sink(std::span(converted).first(narrow<size_t>(count * size_of(to))));
  }
  require_usable(source, *part.tensor, 0, to, statistics);
}

}  // namespace

void rewrite(const WeightSource& source, const RewrittenTensor& tensor, DType to, const ByteSink& sink) {
  for (const RewritePart& part : tensor.parts)
    part.order.empty() ? rewrite_as_it_is(source, *part.tensor, to, sink) : rewrite_in_order(source, part, to, sink);
}

void require_equal(const WeightSource& source, const SourceTensor& tensor, const SourceTensor& alias) {
  const int64_t elements = tensor.stored.shape.elements();
  if (alias.stored.shape != tensor.stored.shape)
    fail(ErrorKind::kWeights, source.file_of(alias), ": untied: '", alias.stored.name, "' must equal '",
         tensor.stored.name, "' ", tensor.stored.shape, "; got ", alias.stored.shape);
  std::vector<float> values(narrow<size_t>(std::min(kPieceElements, elements)));
  for (int64_t first = 0; first < elements; first += kPieceElements) {
    const ReadRange range{&tensor,
                          first,
                          std::min(kPieceElements, elements - first),
                          DType::kF32,
                          reinterpret_cast<std::byte*>(values.data()),
                          {&alias}};
    load_ranges(source, {&range, 1});
  }
}

}  // namespace permafrost
