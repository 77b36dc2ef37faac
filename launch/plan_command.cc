#include <iostream>

#include "configs/load.h"
#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "optim/factory.h"

namespace permafrost {

int run_plan(const PlanOptions& options) {
  const config::Resolved resolved =
      config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  PlanChoices choices;
  choices.world = {options.ranks, options.nodes, options.threads};
  choices.world.cores = options.cores_per_node;
  choices.world.device = program_device(resolved.config);
  choices.node_memory_bytes = static_cast<int64_t>(options.memory_gib * static_cast<double>(int64_t{1} << 30));
  choices.read_files = !resolved.config.weights().vision().empty() || !resolved.config.weights().text().empty();
  const Plan plan = make_plan(plan_request(resolved.config, choices));
  resolve_groups(plan, make_adamw_config(resolved.config));  // patterns that match nothing are named here too
  std::cout << (options.json ? plan.json() + "\n" : plan.table());
  return 0;
}

}  // namespace permafrost
