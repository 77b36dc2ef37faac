#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/graph/graph.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"

namespace permafrost::testing {

using Duals = std::vector<Dual>;

/// One use of an operation and the slow truth about it.
struct OpCase {
  std::string name;
  /// Declares inputs and parameters in order and applies the operation, which must be the graph's only one.
  std::function<void(Graph&)> build;
  /// The observed output from the values of all inputs and parameters.
  std::function<Duals(const std::vector<Duals>& inputs, const std::vector<Duals>& params)> reference;
  BitMask differentiable_inputs = 0;
  std::map<size_t, std::vector<double>> fixed = {};  ///< values of inputs that are not random (ids, labels, masks)
  size_t output = 0;                                 ///< of the operation, compared with the reference
  bool is_loss = false;                              ///< backward starts here: no gradient of the output is given
  std::vector<std::vector<size_t>> together = {};    ///< consecutive parameters, one behind the other in memory
};

/// Runs the operation for every subset of gradients that can be needed (the four classes of freezing among them), in
/// tested_dtypes(), overwriting and adding, in place where the operation allows it, with 1 and 2 threads, and expects:
///   the output and every needed gradient agree with the reference;
///   a gradient's bits are the same whatever else is needed, and for any number of threads;
///   backward gets only what backward_use names, saved buffers and workspaces of the declared size, undefined tensors
///   for what is not needed, and works;
///   nothing else changes: inputs, parameters, the gradient of the output (unless declared), bytes around each tensor.
void check_freezing_matrix(const OpCase& op_case);

}  // namespace permafrost::testing
