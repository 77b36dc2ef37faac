#pragma once
#include "core/device/context.h"
#include "core/kernels/order_free.h"
#include "launch/bench/comm_plan.h"
#include "parallel/group/group.h"

namespace permafrost::bench {

/// This rank's memory that a call works on. input, output: sizes of the CommPlan; slice: f32, slice_elements.
struct CommMemory {
  std::byte* input = nullptr;
  std::byte* output = nullptr;
  float* slice = nullptr;
};

/// One case through one group, on one rank: made ready, called any number of times, checked.
/// Every element's value is a function of rank and index, a whole number in -32..31, so floating sums are exact in any
/// order and every result is known.
class CommCall {
 public:
  /// sums_in_place: order-free sums are reduced in place, as training does; MPI's own call cannot.
  CommCall(const CommCase& row, Group& group, const CommMemory& memory, bool sums_in_place);

  /// Writes the input, and makes every element of the output wrong.
  void fill() const;
  void run(const Context& context) const;
  /// Elements of this rank's output that are not what they must be; right after fill() and one run().
  int64_t wrong() const;

 private:
  const CommCase& row_;
  Group& group_;
  bool moves_;   // nothing is summed
  int64_t own_;  // elements of this rank's part
  Tensor input_, output_, slice_;
  OrderFreeScale scale_;
};

}  // namespace permafrost::bench
