#pragma once
#include <cstdint>
#include <vector>

#include "core/tensor/tensor.h"
#include "parallel/plan/program.h"

namespace permafrost {

class Plan;

/// Frozen parameters that programs on a GPU read in the compute dtype, beside the f32 in which they are stored: an
/// operation asks for it (Op::wants_compute_dtype), and would convert them in every micro-batch otherwise.
class ComputeCopies {
 public:
  static constexpr int64_t kAlignment = 256;

  /// Of parameters that stay where they are, in the frozen space. None in a plan for CPU.
  explicit ComputeCopies(const Plan& plan);

  struct Copy {
    TensorRef from;
    DType dtype = DType::kBF16;  ///< of the copy
    int64_t offset = 0;          ///< among all copies
  };
  const std::vector<Copy>& all() const { return copies_; }
  int64_t bytes() const { return bytes_; }
  /// That of operand `param` of the step; null where there is none.
  const Copy* find(const Plan& plan, size_t bucket, const PlanStep& step, size_t param) const;

 private:
  std::vector<Copy> copies_;  // ascending places in the frozen space
  int64_t bytes_ = 0;
};

}  // namespace permafrost
