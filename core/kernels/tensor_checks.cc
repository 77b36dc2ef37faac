#include "core/kernels/tensor_checks.h"

#include <algorithm>
#include <string>

#include "core/device/cuda.h"

namespace permafrost {

namespace {

std::string dtype_list(std::initializer_list<DType> dtypes) {
  std::string text;
  for (const DType* dtype = dtypes.begin(); dtype != dtypes.end(); ++dtype) {
    if (dtype != dtypes.begin()) text += dtype + 1 == dtypes.end() ? " or " : ", ";
    text += to_string(*dtype);
  }
  return text;
}

std::string_view device_name(Device device) { return device.kind == DeviceKind::kCpu ? "cpu" : "cuda"; }

/// The part every check shares; `wanted` is the expected shape as text, already compared (`shape_fits`).
void check(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context,
           std::string_view wanted, bool shape_fits, std::initializer_list<DType> dtypes) {
  if (!tensor.defined())
    fail(ErrorKind::kShapeMismatch, op, ": ", name, " must be ", wanted, " ", dtype_list(dtypes), "; got none");
  if (!shape_fits || std::find(dtypes.begin(), dtypes.end(), tensor.dtype()) == dtypes.end())
    fail(ErrorKind::kShapeMismatch, op, ": ", name, " must be ", wanted, " ", dtype_list(dtypes), "; got ",
         tensor.spec());
  if (!(tensor.device() == context.device))
    fail(ErrorKind::kShapeMismatch, op, ": ", name, " must be on device ", device_name(context.device), ":",
         context.device.index, "; got ", device_name(tensor.device()), ":", tensor.device().index);
}

}  // namespace

void check_tensor(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context,
                  const Shape& shape, std::initializer_list<DType> dtypes) {
  check(op, name, tensor, context, shape.str(), tensor.defined() && tensor.shape() == shape, dtypes);
}

void check_rank(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context, int rank,
                std::string_view axes, std::initializer_list<DType> dtypes) {
  check(op, name, tensor, context, axes, tensor.defined() && tensor.shape().rank() == rank, dtypes);
}

void check_dtype(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context,
                 std::initializer_list<DType> dtypes) {
  check(op, name, tensor, context, "a tensor of", true, dtypes);
}

void check_device(std::string_view op, const Context& context) {
  if (!on_cuda(context)) {
    PERMAFROST_CHECK(context.pool != nullptr, op, ": a context on cpu must have a thread pool; got none");
    return;
  }
  if (!cuda::built())
    fail(ErrorKind::kNotBuilt, op, ": device must be cpu in a build without CUDA; got cuda:", context.device.index);
  PERMAFROST_CHECK(context.stream.queue() != nullptr, op, ": a context on cuda must have a stream of it; got none");
}

std::initializer_list<DType> activation_dtypes(const Context& context) {
  // Of static duration, as the arrays behind the lists are then.
  static constexpr std::initializer_list<DType> kOnCpu{DType::kF32, DType::kBF16};
  static constexpr std::initializer_list<DType> kOnCuda{DType::kF32, DType::kBF16, DType::kF16};
  return on_cuda(context) ? kOnCuda : kOnCpu;
}

bool is_trailing_shape(const Shape& shape, const Shape& trailing) {
  const auto all = shape.dims(), last = trailing.dims();
  return last.size() <= all.size() && std::equal(last.rbegin(), last.rend(), all.rbegin());
}

}  // namespace permafrost
