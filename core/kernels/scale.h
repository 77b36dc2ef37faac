#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// out = scale * x, elementwise in f32, rounded once. x, out: same shape and dtype, f32 or bf16;  scale: (1) f32.
/// out == x is allowed. Errors (both functions): ShapeMismatch.
void scale_forward(const Context& context, Tensor x, Tensor scale, Tensor out);

/// dx = or += scale * dy (same dtype as dy; dx == dy is allowed with kOverwrite);  dscale (1) f32 = or += sum dy * x,
/// in f64 in an order that depends on the number of elements alone. dx, dscale: undefined = not needed; x is read for
/// dscale, scale for dx. Workspace: scale_workspace_bytes, for dscale alone.
struct ScaleBackward {
  Tensor dy, x, scale, dx, dscale;
  GradMode dx_mode = GradMode::kOverwrite, dscale_mode = GradMode::kOverwrite;
};
void scale_backward(const Context& context, const ScaleBackward& args, Tensor workspace);
int64_t scale_workspace_bytes(int64_t elements);

}  // namespace permafrost
