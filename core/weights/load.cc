#include "core/weights/load.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

namespace {
struct Hashes {
  Sha256 file, stored;
};

}  // namespace

void require_usable(const WeightSource& source, const SourceTensor& tensor, int64_t first_element, DType to,
                    const ConvertStatistics& statistics) {
  if (statistics.non_finite == 0 && statistics.overflowed == 0) return;
  std::string where;
  if (statistics.elements != tensor.stored.shape.elements())
    where = concat(" in elements ", first_element, "..", first_element + statistics.elements - 1);
  if (statistics.non_finite > 0)
    fail(ErrorKind::kWeights, source.file_of(tensor), ": values must be finite; got ", statistics.non_finite,
         " NaN or infinite of ", statistics.elements, where, " [param=", tensor.stored.name, "]");
  fail(ErrorKind::kWeights, source.file_of(tensor), ": values must fit ", to_string(to), "; got ",
       statistics.overflowed, " too large of ", statistics.elements, where, " [param=", tensor.stored.name, "]");
}

void require_range(const WeightSource& source, const SourceTensor& tensor, int64_t first_element, int64_t elements,
                   DType to) {
  const StoredTensor& stored = tensor.stored;
  if (!stored.dtype || !can_convert(*stored.dtype, to))
    fail(ErrorKind::kWeights, source.file_of(tensor), ": expected a dtype that can become ", to_string(to), "; got ",
         stored.dtype_name, " [param=", stored.name, "]");
  const int64_t total = stored.shape.elements();
  PERMAFROST_CHECK(first_element >= 0 && first_element <= total && elements >= 0 && elements <= total - first_element,
                   "load: range must lie within the ", total, " elements; got ", elements, " from element ",
                   first_element, " [param=", stored.name, "]");
}

LoadedSlice load_slice(const WeightSource& source, const SourceTensor& tensor, int64_t first_element, DType to,
                       std::span<std::byte> out, const LoadOptions& options) {
  const int64_t elements = static_cast<int64_t>(out.size()) / size_of(to);
  PERMAFROST_CHECK(elements * size_of(to) == static_cast<int64_t>(out.size()),
                   "load_slice: expected whole elements within the ", tensor.stored.shape.elements(), " elements; got ",
                   out.size(), " bytes of ", to_string(to), " [param=", tensor.stored.name, "]");
  require_range(source, tensor, first_element, elements, to);
  const DType from = *tensor.stored.dtype;

  const int64_t chunk = kLoadChunkBytes / size_of(from);
  std::unique_ptr<std::byte[]> buffer;  // none when the bytes can go where they belong at once
  if (from != to)
    buffer = std::make_unique_for_overwrite<std::byte[]>(narrow<size_t>(std::min(chunk, elements) * size_of(from)));
  std::optional<Hashes> hashes;
  if (options.with_hashes) hashes.emplace();
  LoadedSlice result;
  for (int64_t begin = 0; begin < elements; begin += chunk) {
    const int64_t count = std::min(chunk, elements - begin);
    std::byte* target = out.data() + begin * size_of(to);
    std::byte* read = buffer ? buffer.get() : target;
    const auto read_bytes = narrow<size_t>(count * size_of(from)), target_bytes = narrow<size_t>(count * size_of(to));
    source.read(tensor, (first_element + begin) * size_of(from), {read, read_bytes});
    result.statistics.add(buffer ? convert_block(from, read, to, target, count, options.with_change)
                                 : count_block(from, read, count));
    if (hashes) {
      hashes->file.update(read, read_bytes);
      hashes->stored.update(target, target_bytes);
    }
  }
  if (hashes) {
    result.file_sha256 = hashes->file.finish();
    result.stored_sha256 = hashes->stored.finish();
  }
  require_usable(source, tensor, first_element, to, result.statistics);
  return result;
}

LoadedSlice load_tensor(const WeightSource& source, const SourceTensor& tensor, const Tensor& out,
                        const LoadOptions& options) {
  if (tensor.stored.shape != out.shape())
    fail(ErrorKind::kWeights, source.file_of(tensor), ": expected shape ", out.shape(), "; got ", tensor.stored.shape,
         " [param=", tensor.stored.name, "]");
  return load_slice(source, tensor, 0, out.dtype(), {static_cast<std::byte*>(out.raw()), narrow<size_t>(out.bytes())},
                    options);
}

}  // namespace permafrost
