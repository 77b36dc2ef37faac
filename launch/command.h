#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "launch/env.h"
#include "launch/runtime.h"

namespace permafrost {

/// What main chose to do: set by the callback of the command the user named, run by main, which catches what it throws.
struct CommandLine {
  CLI::App& app;
  Launcher launcher;
  std::function<int()> action;  ///< returns the exit code
};

/// One file per command: each adds a subcommand with its options, and a callback that sets CommandLine::action.
/// Every option's description says its unit, and capture_default_str() shows its default.
void add_bench_command(CommandLine& program);
void add_info_command(CommandLine& program);
void add_data_command(CommandLine& program);
void add_plan_command(CommandLine& program);
void add_probe_command(CommandLine& program);
void add_train_command(CommandLine& program);
void add_weights_command(CommandLine& program);
/// The subcommand `data inspect`.
void add_data_inspect(CommandLine& program, CLI::App& data);

/// Positional CONFIG and repeated --set, shared by the commands that take a configuration.
struct ConfigOptions {
  std::string path;
  std::vector<std::string> overrides;
};
void add_config_options(CLI::App& command, ConfigOptions& options);

}  // namespace permafrost
