#include "core/kernels/kernel_types.h"

namespace permafrost {

std::string_view to_string(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return "none";
    case Activation::kGelu:
      return "gelu";
    case Activation::kQuickGelu:
      return "quick_gelu";
    case Activation::kRelu:
      return "relu";
    case Activation::kSquaredRelu:
      return "squared_relu";
    case Activation::kTanh:
      return "tanh";
  }
  return "?";
}

}  // namespace permafrost
