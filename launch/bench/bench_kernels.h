#pragma once
#include <iosfwd>
#include <string>

#include "core/device/thread_pool.h"

namespace permafrost {

struct BenchKernelsOptions {
  std::string json_path;  ///< one JSON object per line; empty = none
  std::string only;       ///< rows whose name contains this; empty = all
  bool quick = false;     ///< 5 samples a row instead of 20 or more
};

/// `permafrost bench kernels`: times every linear of ViT-B/16 and OPT-125M by itself, forward, dX and dW, bf16 and f32,
/// for 16 samples and for one, against oneDNN with plain and with packed weights; then the memory-bound kernels against
/// a copy of as many bytes. Prints a table to `out`, a section at a time, and writes the JSON lines. Errors: kStorage
/// when the file cannot be written.
void bench_kernels(const BenchKernelsOptions& options, ThreadPool& pool, std::ostream& out);

}  // namespace permafrost
