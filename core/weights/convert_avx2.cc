#include "core/weights/convert_loops.h"

namespace permafrost {

const ConvertLoops& convert_loops_avx2() { return kConvertLoops; }

}  // namespace permafrost
