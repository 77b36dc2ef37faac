#pragma once
#include <cstdint>
#include <string>

namespace permafrost {

/// Cores this process may use: its affinity mask, less where a control group (a container) grants less time. At
/// least 1.
int usable_cores();

/// Cores whose time a control group (a container) grants this process; 0 without limit.
int granted_cores();

/// Seconds since this process was started, to a hundredth. 0 where the kernel does not tell.
double seconds_since_process_start();

/// Pieces of the above that read text, apart so that they can be tested.
/// Cores from the text of cpu.max ("200000 100000", "max 100000"); 0 without limit.
int cores_of_cpu_max(const std::string& text);
/// Clock ticks from the start of the machine to that of a process, from the text of /proc/PID/stat, whose second field
/// is a name in brackets that may have any characters; -1 when it is not there.
int64_t start_of_stat(const std::string& text);

}  // namespace permafrost
