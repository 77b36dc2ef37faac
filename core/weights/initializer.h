#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/device/thread_pool.h"
#include "core/tensor/dtype.h"

namespace permafrost {

/// How a parameter begins when no file gives it.
struct Initializer {
  enum class Kind { kZeros, kOnes, kConstant, kNormal, kUniform };
  Kind kind = Kind::kZeros;
  float scale = 0;  ///< kConstant: the value; kNormal: standard deviation; kUniform: half width
  float clamp = 0;  ///< kNormal: values are cut to [-clamp, clamp]; 0 = not at all

  static constexpr Initializer zeros() { return {}; }
  static constexpr Initializer ones() { return {Kind::kOnes, 0, 0}; }
  static constexpr Initializer constant(float value) { return {Kind::kConstant, value, 0}; }
  static constexpr Initializer normal(float standard_deviation, float clamp = 0) {
    return {Kind::kNormal, standard_deviation, clamp};
  }
  static constexpr Initializer uniform(float bound) { return {Kind::kUniform, bound, 0}; }
  friend bool operator==(const Initializer&, const Initializer&) = default;
};

/// "normal(0.02)", "uniform(0.036)", "zeros", ...
std::string to_string(const Initializer& initializer);

/// Elements [first_element, first_element + out.size() / size_of(dtype)) of the parameter `name` (the full published
/// name). A pure function of (initializer, seed, name, element), so every rank can make its own slice, and the slices
/// together are the whole; the same bits on every processor. dtype f32, bf16 or f16; values are made in f32 and then
/// rounded to nearest even.
///
/// Numbers: Philox4x32-10 addressed by (seed, kInit, first 8 bytes of SHA-256 of the name). Normal values by
/// Box-Muller on 24-bit uniforms in f32 polynomials, so |z| <= 5.77; uniform values are the 2^24 midpoints of equal
/// parts of (-bound, bound).
/// Errors: kInvalidArgument for another dtype, a scale that is negative or not finite, or a range out of reach.
void fill(const Initializer& initializer, uint64_t seed, std::string_view name, DType dtype, int64_t first_element,
          std::span<std::byte> out);
/// The same bits by the threads of `pool`.
void fill(const Initializer& initializer, uint64_t seed, std::string_view name, DType dtype, int64_t first_element,
          std::span<std::byte> out, ThreadPool& pool);

}  // namespace permafrost
