#include "core/device/cpu_features.h"
#include "core/kernels/elementwise_loops.h"

namespace permafrost::cpu {

const ElementLoops kElementLoopsBaseline{convert_any, accumulate_any, add_any, scale_any};

const ElementLoops& element_loops() {
  static const ElementLoops& chosen = cpu_features().avx512 ? kElementLoopsAvx512 : kElementLoopsBaseline;
  return chosen;
}

}  // namespace permafrost::cpu
