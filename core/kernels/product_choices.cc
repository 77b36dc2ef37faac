#include "core/kernels/product_choices.h"

#include "core/base/check.h"
#include "core/device/cuda.h"
#include "core/kernels/matmul_cuda.h"
#include "core/kernels/tensor_checks.h"

namespace permafrost {

std::string to_string(const ProductKey& key) {
  const bool forward = key.pass == LinearPass::kForward, input = key.pass == LinearPass::kBackwardInput;
  // Back from rows, columns and terms to what a linear layer calls them.
  const int64_t m = forward || input ? key.columns : key.terms;
  const int64_t n = forward ? key.rows : input ? key.terms : key.columns;
  const int64_t k = forward ? key.terms : key.rows;
  std::string text = concat(forward ? "forward"
                            : input ? "backward_input"
                                    : "backward_weight",
                            " m=", m, " n=", n, " k=", k, " ", to_string(key.inputs), "->", to_string(key.output));
  if (key.tf32) text += " tf32";
  if (key.bias) text += " bias";
  return text + concat(" ld=", key.lda, ",", key.ldb, ",", key.ldd, " align=", key.alignment_a, ",", key.alignment_b,
                       ",", key.alignment_d);
}

std::string to_string(const ProductChoice& choice) {
  const ProductAlgorithm& a = choice.algorithm;
  if (a.own) return to_string(choice.key) + ": own kernel";
  return concat(to_string(choice.key), ": algorithm=", a.id, " tile=", a.tile, " stages=", a.stages, " split=", a.split,
                " reduction=", a.reduction, " swizzle=", a.swizzle, " option=", a.option, " inner=", a.inner,
                " cluster=", a.cluster, choice.tuned ? " tuned" : " first");
}

ProductDevice product_device(const Context& context) {
  check_device("product_device", context);
  if (!on_cuda(context)) return {};
  const cuda::DeviceInfo info = cuda::device_info(context.device.index);
  return {info.name, concat(info.major, ".", info.minor), cuda::matmul_library()};
}

std::vector<ProductChoice> product_choices(const Context& context) {
  check_device("product_choices", context);
  return on_cuda(context) ? cuda::matmul_choices(context) : std::vector<ProductChoice>();
}

void use_product_choices(const Context& context, std::span<const ProductChoice> choices) {
  check_device("use_product_choices", context);
  if (on_cuda(context)) cuda::use_matmul_choices(context, choices);
}

ProductTuning::ProductTuning(const Context& context) : context_(context) {
  check_device("ProductTuning", context);
  if (on_cuda(context)) cuda::set_matmul_tuning(context, true);
}

ProductTuning::~ProductTuning() {
  if (on_cuda(context_)) cuda::set_matmul_tuning(context_, false);
}

}  // namespace permafrost
