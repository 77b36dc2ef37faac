#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/plan/plan.h"

namespace permafrost {

/// A piece of memory that a plan forecast, by its name there ("arena", "frozen").
struct MemoryPiece {
  std::string category;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};

/// One line of forecast beside use, of one rank; bytes.
struct MemoryUse {
  std::string category;
  int64_t forecast = 0;
  int64_t used = 0;  ///< resident
};

/// Bytes of [data, data + bytes) that are in memory, in whole pages. Of memory that several processes map, pages that
/// any of them touched count. Errors: kInternal when the kernel does not tell.
int64_t resident_bytes(const std::byte* data, int64_t bytes);

/// The categories of MemoryPlan (on a GPU those of HostMemoryPlan), each with what is resident of its pieces; of the
/// frozen memory of the node this rank's share. The last line, "process", is the rest of this process's proportional
/// set size, beside the stated constant (process_constant_bytes).
std::vector<MemoryUse> memory_use(const Plan& plan, const std::vector<MemoryPiece>& pieces, int64_t pss_bytes);

/// The largest resident set size of this process since the last call of `reset_peak_memory` (or its start); 0 where the
/// kernel does not tell.
int64_t peak_memory_bytes();
void reset_peak_memory();

}  // namespace permafrost
