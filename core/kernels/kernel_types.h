#pragma once
#include <cstdint>
#include <string_view>

namespace permafrost {

/// Whether a gradient replaces what its buffer holds or is added to it.
enum class GradMode : uint8_t { kOverwrite, kAdd };

enum class Activation : uint8_t { kNone, kGelu, kQuickGelu, kRelu, kSquaredRelu, kTanh };

std::string_view to_string(Activation activation);

}  // namespace permafrost
