#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

namespace permafrost {

enum class DType : uint8_t { kF32, kBF16, kF16, kF64, kI64, kI32, kU8 };

int64_t size_of(DType dtype);  ///< bytes per element
std::string_view to_string(DType dtype);
/// What activations can be: f32, bf16, and f16 on devices whose kernels have it.
constexpr bool is_activation_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

/// bfloat16 storage. Conversion to float is exact; from float rounds to nearest even, NaN stays NaN.
struct bfloat16 {
  uint16_t bits = 0;
  bfloat16() = default;
  explicit bfloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x0040u);
    } else {
      bits = static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

/// IEEE binary16 storage; conversions in software (bulk conversion lives in the kernels). To float is exact; from float
/// rounds to nearest even, NaN stays NaN.
struct float16 {
  uint16_t bits = 0;
  float16() = default;
  explicit float16(float value);
  explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fffu) << 13;  // of a float, but for the exponent's bias
    const float subnormal = static_cast<float>(static_cast<int32_t>(bits & 0x3ffu)) * 0x1p-24f;  // or zero; exact
    uint32_t u = magnitude + (112u << 23);
    u = magnitude >= 31u << 23 ? u + (112u << 23) : u;  // infinity and NaN
    u = magnitude < 1u << 23 ? std::bit_cast<uint32_t>(subnormal) : u;
    return std::bit_cast<float>(sign | u);
  }
};

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};

}  // namespace permafrost
