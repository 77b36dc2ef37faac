#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/tensor/shape.h"

namespace permafrost {

/// Elements of a tensor within memory or a file, by a stride (in elements) for each axis. Axes of extent 1 and those
/// that lie within each other without gaps are taken together, so what is contiguous has one axis of stride 1, or none.
class StridedView {
 public:
  StridedView() = default;
  /// `strides`: one for each axis, none negative. Extents and strides were checked not to overflow.
  StridedView(const Shape& shape, std::span<const int64_t> strides) {
    if (std::ranges::find(shape.dims(), 0) != shape.dims().end()) {
      elements_ = 0;  // extents and strides mean nothing then, and need not be sane
      return;
    }
    for (int i = 0; i < shape.rank(); ++i) {
      const Axis axis{shape[i], strides[static_cast<size_t>(i)]};
      elements_ *= axis.extent;
      if (axis.extent == 1) continue;
      if (!axes_.empty() && axes_.back().stride == axis.extent * axis.stride) {
        axes_.back() = {axes_.back().extent * axis.extent, axis.stride};
      } else {
        axes_.push_back(axis);
      }
    }
  }

  int64_t elements() const { return elements_; }
  bool contiguous() const { return elements_ == 0 || axes_.empty() || (axes_.size() == 1 && axes_[0].stride == 1); }
  /// Elements from the first to the last one, both included.
  int64_t extent() const {
    int64_t last = 0;
    for (const Axis& axis : axes_) last += (axis.extent - 1) * axis.stride;
    return elements_ == 0 ? 0 : last + 1;
  }
  /// Elements that follow each other in memory, at least 1.
  int64_t run() const { return axes_.empty() || axes_.back().stride != 1 ? 1 : axes_.back().extent; }

  /// For elements [first, first + count) in row-major order, `visit(place, n, stride)`: n elements that lie at `place`
  /// (from the view's first element), place + stride, ...
  template <typename Visit>
  void for_each_row(int64_t first, int64_t count, Visit visit) const {
    const Axis row = axes_.empty() ? Axis{1, 1} : axes_.back();
    while (count > 0) {
      int64_t rest = first / row.extent, place = first % row.extent * row.stride;
      for (size_t i = axes_.size(); i-- > 1;) {
        const Axis& axis = axes_[i - 1];
        place += rest % axis.extent * axis.stride;
        rest /= axis.extent;
      }
      const int64_t n = std::min(count, row.extent - first % row.extent);
      visit(place, n, row.stride);
      first += n;
      count -= n;
    }
  }

  /// Copies elements [first, first + count) of `item` bytes each, the view's first one at `base`, to `out`.
  void gather(const std::byte* base, int64_t item, int64_t first, int64_t count, std::byte* out) const;

 private:
  struct Axis {
    int64_t extent = 0, stride = 0;
  };
  std::vector<Axis> axes_;
  int64_t elements_ = 1;
};

}  // namespace permafrost
