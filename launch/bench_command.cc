#include <iostream>

#include "launch/bench/bench_kernels.h"
#include "launch/commands.h"
#include "launch/runtime.h"

namespace permafrost {

int run_bench_kernels(const BenchOptions& options) {
  RuntimeOptions runtime_options;
  runtime_options.threads = options.threads;
  return run_ranks({}, runtime_options,
                   [&](Runtime& runtime) { bench_kernels(options.bench, runtime.pool, std::cout); });
}

}  // namespace permafrost
