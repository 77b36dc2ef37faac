#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace permafrost {

/// Bytes that the calling thread has read so far by system calls, whether they came from disk or from memory (`rchar`
/// of /proc/thread-self/io). Nothing where the kernel does not count them.
std::optional<int64_t> bytes_read_by_this_thread();

/// The same from the text of such a file.
std::optional<int64_t> rchar_of_io(const std::string& text);

}  // namespace permafrost
