#pragma once
#include <cstdint>
#include <string>

namespace permafrost {

/// Proportional set size of this process in bytes: resident memory, with pages that several processes share divided
/// among them. 0 where the kernel does not tell (/proc/self/smaps_rollup, Linux 4.14).
int64_t pss_bytes();

/// The same from the text of that file.
int64_t pss_of_smaps(const std::string& text);

}  // namespace permafrost
