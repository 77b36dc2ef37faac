#pragma once
#include <chrono>
#include <functional>

namespace permafrost {

/// Runs `task` on a thread of its own and waits for it at most `limit`; false: it has not returned, and is left alone
/// for as long as the process lives, so it must not use what its caller owns. For calls of libraries that may hang. No
/// errors: a task that throws ends the program.
bool run_bounded(std::chrono::milliseconds limit, std::function<void()> task);

}  // namespace permafrost
