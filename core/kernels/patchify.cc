#include "core/kernels/patchify.h"

#include "core/kernels/patchify_cpu.h"
#include "core/kernels/patchify_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

namespace {

void check(std::string_view op, std::string_view images_name, const Tensor& images, std::string_view patches_name,
           const Tensor& patches, int64_t patch, const Context& context) {
  PERMAFROST_CHECK(patch >= 1, op, ": patch size must be at least 1; got ", patch);
  check_rank(op, images_name, images, context, 4, "(B, C, H, W)", activation_dtypes(context));
  if (images.dim(2) % patch != 0 || images.dim(3) % patch != 0)
    fail(ErrorKind::kShapeMismatch, op, ": height and width of ", images_name, " must be multiples of patch ", patch,
         "; got ", images.spec());
  const int64_t rows = images.dim(0) * (images.dim(2) / patch) * (images.dim(3) / patch);
  check_tensor(op, patches_name, patches, context, {rows, images.dim(1) * patch * patch}, activation_dtypes(context));
  check_device(op, context);
}

}  // namespace

void patchify_forward(const Context& context, Tensor images, int64_t patch, Tensor patches) {
  check("patchify_forward", "images", images, "patches", patches, patch, context);
  if (on_cuda(context)) return cuda::patchify_forward(context, images, patch, patches);
  cpu::patchify_forward(context, images, patch, patches);
}

void patchify_backward(const Context& context, Tensor dpatches, int64_t patch, Tensor dimages, GradMode mode) {
  check("patchify_backward", "dimages", dimages, "dpatches", dpatches, patch, context);
  if (on_cuda(context)) return cuda::patchify_backward(context, dpatches, patch, dimages, mode);
  cpu::patchify_backward(context, dpatches, patch, dimages, mode);
}

}  // namespace permafrost
