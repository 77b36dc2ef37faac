#pragma once
#include <cstdlib>
#include <string>

namespace permafrost::testing {

/// The folder of the preset configurations: of $PERMAFROST_CONFIGS, which CTest and tests/gpu/run.sh set, as goldens
/// are found; a test program may be carried to where there is no source.
inline std::string configs_folder() {
  const char* folder = std::getenv("PERMAFROST_CONFIGS");
  return folder ? folder : "configs";
}

}  // namespace permafrost::testing
