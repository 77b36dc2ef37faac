#include "core/weights/strided.h"

namespace permafrost {

namespace {
template <size_t kItem>
void copy_items(const std::byte* from, int64_t step, int64_t n, std::byte* to) {
  for (int64_t i = 0; i < n; ++i, from += step, to += kItem) std::memcpy(to, from, kItem);
}
}  // namespace

void StridedView::gather(const std::byte* base, int64_t item, int64_t first, int64_t count, std::byte* out) const {
  for_each_row(first, count, [&](int64_t place, int64_t n, int64_t stride) {
    const std::byte* from = base + place * item;
    if (stride == 1) {
      std::memcpy(out, from, static_cast<size_t>(n * item));
    } else if (item == 4) {
      copy_items<4>(from, stride * item, n, out);
    } else if (item == 2) {
      copy_items<2>(from, stride * item, n, out);
    } else if (item == 8) {
      copy_items<8>(from, stride * item, n, out);
    } else {
      copy_items<1>(from, stride * item, n, out);
    }
    out += n * item;
  });
}

}  // namespace permafrost
