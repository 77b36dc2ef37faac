#pragma once
#include <string>

#include "launch/runtime.h"

namespace permafrost {

/// What `permafrost info` prints about this build and this machine, as lines of text or as JSON (--json).
std::string describe_installation(const Runtime& runtime, const Launcher& launcher, bool json);

}  // namespace permafrost
