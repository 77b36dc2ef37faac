#pragma once
#include <algorithm>
#include <string_view>

namespace permafrost {

/// A dtype of torch, by all its names. Source: torch/storage.py, torch.dtype; safetensors' list of dtypes.
struct TorchDType {
  std::string_view word;          ///< safetensors': "F32"
  std::string_view name;          ///< torch.X: "float32"
  std::string_view storage = {};  ///< torch.X: "FloatStorage"; empty where torch has only untyped ones
};

inline constexpr TorchDType kTorchDTypes[] = {
    {"F32", "float32", "FloatStorage"},
    {"F64", "float64", "DoubleStorage"},
    {"F16", "float16", "HalfStorage"},
    {"BF16", "bfloat16", "BFloat16Storage"},
    {"I64", "int64", "LongStorage"},
    {"I32", "int32", "IntStorage"},
    {"I16", "int16", "ShortStorage"},
    {"I8", "int8", "CharStorage"},
    {"U8", "uint8", "ByteStorage"},
    {"U16", "uint16"},
    {"U32", "uint32"},
    {"U64", "uint64"},
    {"BOOL", "bool", "BoolStorage"},
    {"C64", "complex64", "ComplexFloatStorage"},
    {"F8_E4M3", "float8_e4m3fn"},
    {"F8_E5M2", "float8_e5m2"},
};

/// Of a global in a pickle, "torch float32" or "torch FloatStorage"; nullptr when it is neither.
constexpr const TorchDType* find_torch_dtype(std::string_view global) {
  constexpr std::string_view kModule = "torch ";
  if (!global.starts_with(kModule)) return nullptr;
  global.remove_prefix(kModule.size());
  const auto* found = std::ranges::find_if(kTorchDTypes, [&](const TorchDType& dtype) {
    return global == dtype.name || (global == dtype.storage && !global.empty());
  });
  return found == std::end(kTorchDTypes) ? nullptr : found;
}

}  // namespace permafrost
