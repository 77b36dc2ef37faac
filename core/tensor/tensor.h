#pragma once
#include <cstddef>
#include <ostream>

#include "core/base/check.h"
#include "core/device/device.h"
#include "core/tensor/dtype.h"
#include "core/tensor/shape.h"

namespace permafrost {

/// Shape and dtype without memory: what graphs and plans reason about.
struct TensorSpec {
  Shape shape;
  DType dtype = DType::kF32;
  int64_t bytes() const { return shape.elements() * size_of(dtype); }
  friend bool operator==(const TensorSpec&, const TensorSpec&) = default;
};

inline std::ostream& operator<<(std::ostream& out, const TensorSpec& spec) {
  return out << spec.shape << ' ' << to_string(spec.dtype);
}

/// Non-owning, contiguous (row-major) view of device memory. A default-constructed tensor is *undefined*: kernels
/// read it as "not given" or "not needed" (an unneeded gradient is an undefined tensor).
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, const Shape& shape, Device device = Device::cpu())
      : data_(data), spec_{shape, dtype}, device_(device), defined_(true) {}
  Tensor(void* data, const TensorSpec& spec, Device device = Device::cpu())
      : data_(data), spec_(spec), device_(device), defined_(true) {}

  bool defined() const { return defined_; }
  explicit operator bool() const { return defined_; }
  const TensorSpec& spec() const { return spec_; }
  const Shape& shape() const { return spec_.shape; }
  int64_t dim(int axis) const { return spec_.shape[axis]; }
  DType dtype() const { return spec_.dtype; }
  Device device() const { return device_; }
  int64_t elements() const { return defined_ ? spec_.shape.elements() : 0; }
  int64_t bytes() const { return defined_ ? spec_.bytes() : 0; }
  void* raw() const { return data_; }

  /// Typed pointer; throws ShapeMismatch when T is not the tensor's dtype.
  template <typename T>
  T* data() const {
    if (DTypeOf<T>::value != spec_.dtype)
      fail(ErrorKind::kShapeMismatch, "Tensor::data: dtype must be ", to_string(DTypeOf<T>::value), "; got ",
           to_string(spec_.dtype), " of shape ", spec_.shape);
    return static_cast<T*>(data_);
  }

  /// Same memory seen with another shape of as many elements.
  Tensor reshaped(const Shape& shape) const {
    if (shape.elements() != elements())
      fail(ErrorKind::kShapeMismatch, "Tensor::reshaped: ", spec_.shape, " has not the elements of ", shape);
    return {data_, spec_.dtype, shape, device_};
  }

  /// Rows [begin, end) of the first axis.
  Tensor rows(int64_t begin, int64_t end) const {
    PERMAFROST_CHECK(0 <= begin && begin <= end && end <= dim(0), "Tensor::rows: range must lie in 0..", dim(0),
                     "; got ", begin, "..", end);
    std::array<int64_t, Shape::kMaxRank> dims{};
    const auto old = spec_.shape.dims();
    std::copy(old.begin(), old.end(), dims.begin());
    const int64_t row_bytes = dim(0) == 0 ? 0 : bytes() / dim(0);
    dims[0] = end - begin;
    return {static_cast<std::byte*>(data_) + begin * row_bytes, spec_.dtype, Shape({dims.data(), old.size()}), device_};
  }

 private:
  void* data_ = nullptr;
  TensorSpec spec_;
  Device device_ = Device::cpu();
  bool defined_ = false;
};

}  // namespace permafrost
