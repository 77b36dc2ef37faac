#include "core/weights/initializer_loops.h"

namespace permafrost {

const TileLoops& tile_loops_avx512() { return kTileLoops; }

}  // namespace permafrost
