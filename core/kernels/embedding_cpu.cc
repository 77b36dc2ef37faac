#include "core/kernels/embedding_cpu.h"

#include <algorithm>
#include <cstring>

#include "core/kernels/elementwise.h"

namespace permafrost::cpu {

namespace {

void check_ids(const Tensor& ids, int64_t vocabulary) {
  const int32_t* id = ids.data<int32_t>();
  for (int64_t row = 0; row < ids.elements(); ++row)
    if (id[row] < 0 || id[row] >= vocabulary)
      fail(ErrorKind::kInvalidArgument, "embedding: ids must lie in 0..", vocabulary - 1, "; got ", id[row], " at row ",
           row);
}

}  // namespace

void embedding_forward(const Context& context, Tensor ids, Tensor table, Tensor out) {
  check_ids(ids, table.dim(0));
  const ElementLoops& loops = element_loops();
  const int64_t width = table.dim(1);
  const int32_t* id = ids.data<int32_t>();
  const int64_t rows_per_block = std::max<int64_t>(1, kElementBlock / std::max<int64_t>(1, width));
  for_ranges(context, ids.elements(), rows_per_block, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      loops.convert(table.dtype(), at(table, id[row] * width), out.dtype(), at(out, row * width), width);
  });
}

void embedding_backward(const Context& context, Tensor ids, Tensor dout, Tensor dtable, GradMode mode) {
  constexpr int64_t kColumns = 64;  // a block of columns belongs to one thread, which walks the rows in order
  check_ids(ids, dtable.dim(0));
  if (mode == GradMode::kOverwrite)
    for_ranges(context, dtable.elements(), kElementBlock, [&](int64_t begin, int64_t end) {
      std::memset(at(dtable, begin), 0, static_cast<size_t>(end - begin) * sizeof(float));
    });
  const ElementLoops& loops = element_loops();
  const int64_t width = dtable.dim(1), rows = ids.elements();
  const int32_t* id = ids.data<int32_t>();
  for_ranges(context, width, kColumns, [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < rows; ++row)
      loops.accumulate(dout.dtype(), at(dout, row * width + begin), DType::kF32, at(dtable, id[row] * width + begin),
                       end - begin);
  });
}

}  // namespace permafrost::cpu
