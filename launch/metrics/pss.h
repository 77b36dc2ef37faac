#pragma once
#include <cstdint>
#include <string>

namespace permafrost {

/// Resident memory of a process in bytes; 0 where the kernel does not tell (/proc/self/smaps_rollup, Linux 4.14).
struct ProcessMemory {
  int64_t pss_bytes = 0;  ///< proportional set size: pages that several processes share are divided among them
  int64_t uss_bytes = 0;  ///< unique set size: pages that nobody else has
};
ProcessMemory process_memory();
inline int64_t pss_bytes() { return process_memory().pss_bytes; }

/// The same from the text of that file.
ProcessMemory memory_of_smaps(const std::string& text);

}  // namespace permafrost
