#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "configs/config.pb.h"
#include "core/base/error.h"
#include "launch/runtime.h"
#include "launch/training/frozen_hash.h"
#include "launch/training/plan_setup.h"
#include "parallel/group/group.h"
#include "parallel/plan/plan.h"

namespace permafrost {

/// Facts by name, in the order of names.
using Facts = std::map<std::string, std::string>;

/// All ranks must have the same facts as rank 0. Collective, and not for the step path.
/// Errors: `kind`, on the first rank that differs, naming the first fact in which it does, with both values:
/// "<what>: all ranks must agree; got optimizer.lr = 1e-4 on rank 0, 2e-4 on rank 3".
void require_agreement(Group& world, std::string_view what, const Facts& mine, ErrorKind kind);

/// All ranks must have opened the same samples, of which `hash` is that of their tokens (TextTable::hash). who: the
/// path of the data in the configuration. Collective. Errors: kData.
void require_same_samples(Group& world, std::string_view who, const std::string& hash);

/// All ranks must have the same weights in memory, `frozen` being the hash of the frozen ones, and files from which the
/// same would be read again: ranks that read parts of one unit from different files all see the same mixture.
/// Collective. Errors: kWeights.
void require_same_weights(const config::Config& config, Runtime& runtime, const FrozenHash& frozen);

/// What ranks that work together must plan alike: policies, stored dtypes, addresses of what is exchanged. Threads and
/// what depends on them may differ.
Facts plan_facts(const Plan& plan);

/// The plan of a run: all ranks have the same configuration, plan alike for the node with least memory, and fit.
/// Collective. Errors: those of make_plan, check_memory and check_device_memory; kConfig when ranks
/// differ.
Plan agreed_plan(const config::Config& config, Runtime& runtime);
/// The same for a plan of another making from the choices that ranks agree on.
Plan agreed_plan(const config::Config& config, Runtime& runtime, const std::function<Plan(const PlanChoices&)>& make);

}  // namespace permafrost
