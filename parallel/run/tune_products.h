#pragma once
#include <string>
#include <vector>

#include "core/kernels/product_choices.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"
#include "parallel/run/executor.h"

namespace permafrost {

struct PreparedProducts {
  std::string record;  ///< ProductRecord as text, to be stored with the run; on CPU what was given
  std::string note;    ///< for the log: that a record could not be used; "" otherwise
  size_t tuned = 0;    ///< products that were tuned now
};

/// Before the first step on CUDA: decides which algorithm computes each product of the plan's programs, the same on all
/// ranks, and makes what products need, so that programs may be captured into graphs afterwards. Does nothing on CPU.
///
/// stored: the record of an earlier part of the run, the same on all ranks, or "". If it was made on such a GPU with
/// this version of the library, it is what counts. Otherwise, with `tune`, rank 0 measures and the others do as it
/// says; without, each takes the first algorithm that the library names, a pure function of product, GPU and library.
///
/// Runs every program once or twice on inputs as they are (in range for every kernel, zeros say): what it leaves in
/// arena and states is anything, parameters are only read, no gradient is handed over and no observer sees it.
/// Collective over `world`. Errors: kWeights for a stored record that is damaged; kConfig when ranks that share choices
/// have other GPUs or libraries than rank 0, or a call of attention of the programs is computed by a library on one
/// rank and otherwise on another (require_same_attention); kInternal when a rank has a product that rank 0 has not.
PreparedProducts prepare_products(Executor& executor, const Plan& plan, Group& world, bool tune,
                                  const std::string& stored);

/// What ranks that share choices must have alike: `mine` on rank 0. Collective. Errors: kConfig, on those that differ.
void require_device_of_first(Group& world, const ProductDevice& mine);

}  // namespace permafrost
