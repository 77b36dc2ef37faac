#pragma once
#include <iosfwd>
#include <string>

#include "core/device/stream.h"

namespace permafrost {

struct BenchGpuOptions {
  std::string json_path;  ///< one JSON object per line; empty = none
  std::string only;       ///< rows whose name contains this; empty = all
  bool quick = false;     ///< 5 takes of 2 ms a row instead of 15 of 5 ms
  bool tiny = false;      ///< one call a row, of sizes that an emulation computes; figures mean nothing then
};

/// `permafrost bench kernels --device cuda`: what this device reaches at most (products of large matrices, a copy),
/// then every kind of call of the workloads E1, E3 and E4 at its shapes, each in turns with the ceiling it is set
/// beside; then each workload's calls summed up. Prints tables to `out` and writes the JSON lines. Errors: kStorage
/// when the file cannot be written; those of the device.
void bench_gpu(const BenchGpuOptions& options, Stream& stream, std::ostream& out);

}  // namespace permafrost
