#include "core/tensor/shape.h"

#include <algorithm>

#include "core/base/check.h"

namespace permafrost {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) {
  PERMAFROST_CHECK(dims.size() <= kMaxRank, "Shape: at most 6 axes; got ", dims.size());
  for (int64_t dim : dims) {
    PERMAFROST_CHECK(dim >= 0, "Shape: extents must not be negative; got ", dim);
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
}

int64_t Shape::operator[](int i) const {
  const int axis = i < 0 ? i + rank_ : i;
  PERMAFROST_CHECK(axis >= 0 && axis < rank_, "Shape: axis must be within ", rank_, " axes; got ", i);
  return dims_[static_cast<size_t>(axis)];
}

int64_t Shape::elements() const {
  if (std::ranges::find(dims(), 0) != dims().end()) return 0;  // whatever the others are
  int64_t product = 1;
  for (int64_t dim : dims()) {
    if (__builtin_mul_overflow(product, dim, &product))
      fail(ErrorKind::kInvalidArgument, "Shape: number of elements of ", str(), " does not fit 64 bits");
  }
  return product;
}

std::string Shape::str() const {
  std::string text = "(";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string(dims_[static_cast<size_t>(i)]);
  return text + ")";
}

bool operator==(const Shape& a, const Shape& b) { return std::ranges::equal(a.dims(), b.dims()); }

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.str(); }

}  // namespace permafrost
