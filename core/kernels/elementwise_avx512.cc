#include "core/kernels/elementwise_loops.h"

namespace permafrost::cpu {

const ElementLoops kElementLoopsAvx512{convert_any, accumulate_any, add_any, scale_any};

}  // namespace permafrost::cpu
