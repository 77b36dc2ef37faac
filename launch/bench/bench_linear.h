#pragma once
#include <functional>
#include <string>

#include "core/tensor/dtype.h"
#include "launch/bench/timing.h"

namespace permafrost::bench {

/// One linear layer, one pass: seconds per call, median.
struct LinearRow {
  std::string model, layer, pass;
  DType dtype = DType::kF32;
  int samples = 1;
  int64_t m = 0, n = 0, k = 0;
  double flops = 0;
  double ours = 0, plain = 0, packed = 0;  ///< packed 0: there is nothing to pack

  double ratio() const;  ///< our speed in units of the better of oneDNN's two
  std::string name() const;
};

/// Every linear of ViT-B/16 and OPT-125M whose name contains `only`.
void bench_linear(ThreadPool& pool, Stopwatch& watch, const std::string& only,
                  const std::function<void(const LinearRow&)>& report);

}  // namespace permafrost::bench
