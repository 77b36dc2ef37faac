#pragma once
#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>

#include "core/tensor/shape.h"

namespace permafrost {

/// What an operation is made with beside its operands, as text: "eps=1e-05 heads=4". Two texts are equal exactly when
/// names and values are: floating-point numbers are printed to round-trip, enumerations as numbers.
class Constants {
 public:
  template <typename T>
  Constants& add(std::string_view name, const T& value) {
    if (!text_.empty()) text_ += ' ';
    text_.append(name).push_back('=');
    if constexpr (std::is_same_v<T, Shape>) {
      text_ += value.str();
    } else if constexpr (std::is_same_v<T, bool>) {
      number(int{value});
    } else if constexpr (std::is_enum_v<T>) {
      number(static_cast<int64_t>(value));
    } else {
      number(value);
    }
    return *this;
  }
  operator std::string() const { return text_; }  // NOLINT: reads as the text it builds

 private:
  template <typename T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    char digits[32];
    text_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  std::string text_;
};

}  // namespace permafrost
