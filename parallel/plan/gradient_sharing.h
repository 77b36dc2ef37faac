#pragma once
#include <vector>

namespace permafrost {

/// Steps at which a value's gradient buffer is written (clobbering counts) and read.
struct GradientUse {
  std::vector<int> writes, reads;
};

/// Decides which gradients may live in the same memory. The backward of an addition passes its output's gradient on
/// unchanged; when nobody disturbs the shared copy, no copy is needed. Along a residual stream this leaves one buffer
/// for the whole network.
///
/// Members of a class hold the same content from the step at which a member joined. Sharing is valid as long as no
/// member's write changes what another still reads: a write of m1 at t1 and a read of m2 at t2 >= t1 conflict, unless
/// m2 joined at or after t1 (then it was made from what was written).
class GradientSharing {
 public:
  explicit GradientSharing(const std::vector<GradientUse>& uses);

  /// At `step`, the gradient of `to` would be a copy of the gradient of `from`. Shares them if valid.
  bool try_share(int from, int to, int step);

  struct Class {
    std::vector<int> members;
    int first_step = 0, last_step = 0;
  };
  /// All classes of gradients that exist, single ones included.
  std::vector<Class> classes() const;

 private:
  bool conflicts(int writer, int reader) const;

  std::vector<GradientUse> uses_;
  std::vector<int> class_of_;              // per value
  std::vector<std::vector<int>> members_;  // per class
  std::vector<int> joined_;                // per value: step, -1 for the first member
};

}  // namespace permafrost
