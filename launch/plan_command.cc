#include <iostream>

#include "configs/load.h"
#include "launch/command.h"
#include "launch/machine.h"
#include "launch/training/name_patterns.h"
#include "launch/training/plan_setup.h"
#include "optim/factory.h"

namespace permafrost {

namespace {

struct PlanOptions {
  ConfigOptions config;
  int ranks = 1;
  int nodes = 1;
  int threads = 1;
  bool json = false;
};

int plan(const PlanOptions& options) {
  const config::Resolved resolved = config::load_config(options.config.path, options.config.overrides, check_name_patterns);
  PlanChoices choices;
  choices.world = {options.ranks, options.nodes, options.threads};
  choices.read_files = !resolved.config.weights().vision().empty() || !resolved.config.weights().text().empty();
  const Plan plan = make_plan(plan_request(resolved.config, choices));
  resolve_groups(plan, make_adamw_config(resolved.config));  // patterns that match nothing are named here too
  std::cout << (options.json ? plan.json() + "\n" : plan.table());
  return 0;
}

}  // namespace

void add_plan_command(CommandLine& program) {
  CLI::App* command = program.app.add_subcommand(
      "plan", "Prints what a step would do, per unit: classes, bytes, traffic, work. Needs no weights and no machine of that size");
  auto options = std::make_shared<PlanOptions>();
  add_config_options(*command, options->config);
  command->add_option("--ranks", options->ranks, "Ranks of the planned world")->capture_default_str()->check(CLI::Range(1, 1 << 20));
  command->add_option("--nodes", options->nodes, "Nodes they stand on, at most --ranks")->capture_default_str()->check(CLI::Range(1, 1 << 20));
  command->add_option("--threads", options->threads, "Compute threads per rank")->capture_default_str()->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "JSON instead of a table (keys: docs/plan.md)");
  command->callback([&program, options] { program.action = [options] { return plan(*options); }; });
}

}  // namespace permafrost
