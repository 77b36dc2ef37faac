#pragma once
#include <functional>
#include <string>

#include "launch/bench/linear_problem.h"

// oneDNN, against which `bench kernels` measures the CPU's products; nothing else uses it. onednn.cc where the program
// is linked with it, no_onednn.cc where it is not: in a bundle, whose largest library it would be.
namespace permafrost::bench {

/// Of the library, such as "2.6.0"; "none" without it.
std::string onednn_version();

/// The problem's product as one oneDNN matmul. Packed: weights in the layout it likes best, put there outside of the
/// call. The problem must outlive it. Errors: kNotBuilt without oneDNN.
std::function<void()> onednn_product(const Problem& problem, bool packed);

}  // namespace permafrost::bench
