#pragma once
#include <initializer_list>
#include <string_view>

#include "core/device/context.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Checks that open every kernel. All of them throw ShapeMismatch: `<op>: <name> must be (2, 3) f32 or bf16; got ...`.

/// Defined, of this shape, one of these dtypes, on the context's device.
void check_tensor(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context,
                  const Shape& shape, std::initializer_list<DType> dtypes);

/// Defined, of this many axes, one of these dtypes, on the context's device. `axes` names them: "(B, T, C)".
void check_rank(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context, int rank,
                std::string_view axes, std::initializer_list<DType> dtypes);

/// Defined, of any shape, one of these dtypes, on the context's device.
void check_dtype(std::string_view op, std::string_view name, const Tensor& tensor, const Context& context,
                 std::initializer_list<DType> dtypes);

/// Dtypes of activations and their gradients, for the checks above: f32 or bf16, on CUDA f16 too.
std::initializer_list<DType> activation_dtypes(const Context& context);

/// Throws NotBuilt for a CUDA device in a build without CUDA, and InvalidArgument for a context that lacks what kernels
/// of its device need: a thread pool on CPU, a stream on CUDA.
void check_device(std::string_view op, const Context& context);

inline bool on_cuda(const Context& context) { return context.device.kind == DeviceKind::kCuda; }

/// True when `trailing` equals the last axes of `shape`.
bool is_trailing_shape(const Shape& shape, const Shape& trailing);

}  // namespace permafrost
