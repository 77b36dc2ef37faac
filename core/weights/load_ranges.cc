#include "core/weights/load_ranges.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "core/base/check.h"
#include "core/base/narrow.h"
#include "core/weights/load.h"

namespace permafrost {

namespace {

/// Reads one range after the other; its buffers grow to what the largest chunk needs, and stay.
class RangeLoader {
 public:
  RangeLoader(const WeightSource& source, bool with_change) : source_(source), with_change_(with_change) {}

  ConvertStatistics load(const ReadRange& range) {
    const SourceTensor& tensor = *range.tensor;
    require_range(source_, tensor, range.first_element, range.elements, range.to);
    const DType from = *tensor.stored.dtype;
    const int64_t step = kRangeChunkBytes / std::max(size_of(from), size_of(range.to));
    ConvertStatistics statistics;
    for (int64_t begin = 0; begin < range.elements; begin += step) {
      const int64_t count = std::min(step, range.elements - begin), first = range.first_element + begin;
      std::byte* target = range.target + begin * size_of(range.to);
      // Bytes that stay as they are go where they belong at once.
      const std::span<const std::byte> read =
          from == range.to ? read_into(tensor, first, {target, narrow<size_t>(count * size_of(from))})
                           : read_into(tensor, first, sized(values_, count * size_of(from)));
      for (const SourceTensor* alias : range.aliases) compare(tensor, *alias, first, read, count);
      statistics.add(from == range.to ? count_block(from, read.data(), count)
                                      : convert_block(from, read.data(), range.to, target, count, with_change_));
    }
    require_usable(source_, tensor, range.first_element, range.to, statistics);
    return statistics;
  }

  int64_t bytes() const { return bytes_; }

 private:
  static std::span<std::byte> sized(std::vector<std::byte>& buffer, int64_t bytes) {
    if (std::cmp_less(buffer.size(), bytes)) buffer.resize(narrow<size_t>(bytes));
    return std::span(buffer).first(narrow<size_t>(bytes));
  }

  std::span<const std::byte> read_into(const SourceTensor& tensor, int64_t first, std::span<std::byte> out) {
    source_.read(tensor, first * size_of(*tensor.stored.dtype), out);
    bytes_ += static_cast<int64_t>(out.size());
    return out;
  }

  std::span<const std::byte> as_f32(DType from, std::span<const std::byte> values, int64_t count,
                                    std::vector<std::byte>& buffer) {
    const auto floats = sized(buffer, count * size_of(DType::kF32));
    convert_block(from, values.data(), DType::kF32, floats.data(), count);
    return floats;
  }

  /// `values`: elements [first, first + count) of the tensor as stored.
  void compare(const SourceTensor& tensor, const SourceTensor& alias, int64_t first, std::span<const std::byte> values,
               int64_t count) {
    require_range(source_, alias, first, count, DType::kF32);
    const DType from = *tensor.stored.dtype, alias_from = *alias.stored.dtype;
    std::span<const std::byte> left = values,
                               right = read_into(alias, first, sized(alias_values_, count * size_of(alias_from)));
    if (from != alias_from) {
      left = as_f32(from, left, count, left_floats_);
      right = as_f32(alias_from, right, count, right_floats_);
    }
    if (std::memcmp(left.data(), right.data(), left.size()) == 0) return;
    const int64_t byte = std::ranges::mismatch(left, right).in1 - left.begin();
    const int64_t element = first + byte / (static_cast<int64_t>(left.size()) / count);
    const Shape& shape = tensor.stored.shape;
    const int64_t row = shape.rank() > 0 ? element / (shape.elements() / shape[0]) : 0;
    fail(ErrorKind::kWeights, source_.file_of(alias), ": untied: '", alias.stored.name, "' must equal '",
         tensor.stored.name, "'; they differ first in row ", row);
  }

  const WeightSource& source_;
  bool with_change_;
  int64_t bytes_ = 0;
  std::vector<std::byte> values_, alias_values_, left_floats_, right_floats_;
};

}  // namespace

RangesRead load_ranges(const WeightSource& source, std::span<const ReadRange> ranges, bool with_change) {
  const auto place = [&](size_t i) {
    const ReadRange& range = ranges[i];
    return std::tuple(range.tensor->file, range.tensor->stored.file_offset, range.first_element);
  };
  std::vector<size_t> order(ranges.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, place);
  RangeLoader loader(source, with_change);
  RangesRead result;
  result.statistics.resize(ranges.size());
  for (size_t i : order) result.statistics[i] = loader.load(ranges[i]);
  result.bytes = loader.bytes();
  return result;
}

}  // namespace permafrost
