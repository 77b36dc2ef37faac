#pragma once
#include <cstdint>
#include <string>

namespace permafrost {

/// Cores this process may use: its affinity mask, less where a control group (a container) grants less time. At
/// least 1.
int usable_cores();

/// Bytes of memory this process may use: the machine's, or the limit of its control group where that is lower.
int64_t usable_memory_bytes();

/// Pieces of the above that read text, apart so that they can be tested.
/// Cores from the text of cpu.max ("200000 100000", "max 100000"); 0 without limit.
int cores_of_cpu_max(const std::string& text);
/// Bytes from the text of memory.max ("1073741824", "max"); 0 without limit.
int64_t bytes_of_memory_max(const std::string& text);

}  // namespace permafrost
