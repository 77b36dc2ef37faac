#pragma once
#include <cstdint>
#include <limits>
#include <string>

#include "configs/problems.h"
#include "core/base/check.h"

namespace permafrost::config {

inline constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
inline constexpr int64_t kMostWidth = 1 << 20;

/// Checks of the fields below one path.
class Section {
 public:
  Section(std::string path, Problems& problems) : path_(std::move(path)), problems_(problems) {}
  std::string at(const std::string& field) const { return path_ + "." + field; }
  Problems& problems() const { return problems_; }

  /// low <= value <= high, whole numbers.
  bool whole(const std::string& field, int64_t value, int64_t low, int64_t high) const {
    if (value >= low && value <= high) return true;
    problems_.expected(at(field), high == kMost ? concat(low, " and up") : concat(low, " to ", high), value);
    return false;
  }
  /// The same for a field without default.
  bool given(bool has, const std::string& field, int64_t value, int64_t low, int64_t high) const {
    if (has) return whole(field, value, low, high);
    problems_.expected(at(field),
                       high == kMost ? concat("a value, ", low, " and up") : concat("a value, ", low, " to ", high),
                       "none");
    return false;
  }
  /// low <= value, and value < below or value <= most; never NaN or infinity.
  void real(const std::string& field, double value, double low, double most) const {
    if (!(value >= low && value <= most)) problems_.expected(at(field), concat(low, " to ", most), value);
  }
  void below(const std::string& field, double value, double low, double limit) const {
    if (!(value >= low && value < limit)) problems_.expected(at(field), concat(low, " to below ", limit), value);
  }
  void above_zero(const std::string& field, double value) const {
    if (!(value > 0 && value <= std::numeric_limits<double>::max()))
      problems_.expected(at(field), "a finite number above 0", value);
  }
  void not_negative(const std::string& field, double value) const {
    if (!(value >= 0 && value <= std::numeric_limits<double>::max()))
      problems_.expected(at(field), "a finite number, 0 and up", value);
  }
  /// value is a multiple of divisor, both known to be in range.
  void multiple(const std::string& field, int64_t value, const std::string& divisor_field, int64_t divisor) const {
    if (divisor > 0 && value % divisor != 0)
      problems_.expected(at(field), concat("a multiple of ", divisor_field, " = ", divisor), value);
  }

 private:
  std::string path_;
  Problems& problems_;
};

}  // namespace permafrost::config
