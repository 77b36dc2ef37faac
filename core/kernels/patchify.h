#pragma once
#include "core/device/context.h"
#include "core/kernels/kernel_types.h"
#include "core/tensor/tensor.h"

namespace permafrost {

/// Cuts images into rows for a patch convolution written as a linear layer: rows in raster order of patches, columns
/// ordered (channel, y, x) as a convolution weight [D, C, P, P] seen as [D, C P P].
/// images: (B, C, H, W) f32 or bf16;  patches: (B * (H/P) * (W/P), C * P * P) f32 or bf16. H and W must be multiples of
/// P. Errors: ShapeMismatch; InvalidArgument for a patch size below 1.
void patchify_forward(const Context& context, Tensor images, int64_t patch, Tensor patches);

/// The transpose: dimages (f32 or bf16) from dpatches; each pixel belongs to one patch.
void patchify_backward(const Context& context, Tensor dpatches, int64_t patch, Tensor dimages, GradMode mode);

}  // namespace permafrost
