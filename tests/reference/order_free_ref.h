#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace permafrost::reference {

/// The slow truth of order-free sums, in integer arithmetic alone: no rounding mode, no floating product.

__extension__ using Int128 = __int128;

/// x = mantissa 2^exponent exactly, for finite x.
struct ExactFloat {
  int64_t mantissa = 0;
  int exponent = 0;
};
inline ExactFloat exact(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto field = static_cast<int>((bits >> 23) & 0xffu);
  int64_t mantissa = bits & 0x7fffffu;
  if (field != 0) mantissa += 0x800000;
  return {bits >> 31 ? -mantissa : mantissa, (field == 0 ? 1 : field) - 150};
}

/// round(mantissa 2^places) to nearest, ties to even.
inline Int128 shift_rounded(Int128 mantissa, int places) {
  if (places >= 0) return mantissa * (Int128{1} << places);
  if (places < -120) return 0;
  const Int128 unit = Int128{1} << -places;
  Int128 quotient = mantissa / unit;
  Int128 rest = mantissa % unit;
  if (rest < 0) {  // floor division
    rest += unit;
    quotient -= 1;
  }
  if (2 * rest > unit || (2 * rest == unit && quotient % 2 != 0)) quotient += 1;
  return quotient;
}

/// round(x 2^shift), 0 outside |x| < 2^exponent.
inline Int128 order_free_integer(float x, int exponent, int shift) {
  if (!std::isfinite(x) || std::fabs(static_cast<double>(x)) >= std::ldexp(1.0, exponent)) return 0;
  const ExactFloat e = exact(x);
  return shift_rounded(e.mantissa, e.exponent + shift);
}

/// Nearest double (ties to even) of an integer below 2^63 in magnitude, by counting bits.
inline double nearest_double(Int128 value) {
  const bool negative = value < 0;
  Int128 magnitude = negative ? -value : value;
  int dropped = 0;
  while ((magnitude >> dropped) >= (Int128{1} << 53)) ++dropped;
  magnitude = shift_rounded(magnitude, -dropped);
  const double result = std::ldexp(static_cast<double>(static_cast<int64_t>(magnitude)), dropped);
  return negative ? -result : result;
}

/// Sum over summands of one element, as the engine must give it.
inline float order_free_sum(const std::vector<float>& summands, int exponent, int shift) {
  Int128 sum = 0;
  for (const float x : summands) sum += order_free_integer(x, exponent, shift);
  return static_cast<float>(std::ldexp(nearest_double(sum), -shift));
}

/// The exact sum as an integer multiple of 2^unit; every summand must be one, and the sum must fit 127 bits.
inline Int128 exact_sum(const std::vector<float>& summands, int unit) {
  Int128 sum = 0;
  for (const float x : summands) {
    const ExactFloat e = exact(x);
    sum += e.mantissa * (Int128{1} << (e.exponent - unit));
  }
  return sum;
}

}  // namespace permafrost::reference
