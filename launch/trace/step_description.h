#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "parallel/plan/plan.h"

namespace permafrost {

/// What a step of a program is, in words and by the plan's counts.
struct StepDescription {
  std::string kind;       ///< of the operation; "sum_gradient", "add_gradient" and "copy_gradient" of other steps
  std::string direction;  ///< "forward", "backward"; "" of other steps
  std::string shape;      ///< of its first input and first parameter
  std::string name;       ///< the scope of the operation, or the parameter whose gradient is summed
  std::string unit;
  std::string value;   ///< name of what the operation makes: of its first output, or of the state it writes; of
                       ///< "sum_gradient" the parameter
  int64_t tokens = 0;  ///< of the bucket
  double flops = 0;    ///< of a call, as the plan counts them
  int64_t bytes = 0;   ///< of the tensors of a call, each once
};

StepDescription describe_step(const Plan& plan, size_t bucket, size_t step);

/// One line that names it among all of its program: "text.layers.3.out", "backward text.layers.3.out", "sum NAME".
std::string title_of(const StepDescription& step);

}  // namespace permafrost
