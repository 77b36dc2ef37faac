#include "core/base/check.h"
#include "launch/bench/onednn.h"

namespace permafrost::bench {

std::string onednn_version() { return "none"; }

std::function<void()> onednn_product(const Problem&, bool) {
  fail(ErrorKind::kNotBuilt,
       "bench kernels: products of the CPU are measured against oneDNN; this program is linked without it (bundles "
       "are)");
}

}  // namespace permafrost::bench
