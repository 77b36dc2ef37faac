#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

#include "launch/commands.h"

// What the files of the command line have in common.
namespace permafrost {

struct CommandLine {
  CLI::App& app;
  std::function<int()> action;  ///< set by the callback of the command that the user named
};

void add_config_options(CLI::App& command, ConfigOptions& options, bool required = true);
/// usual: the steps that are traced without --trace-steps.
CLI::Option* add_trace_options(CLI::App& command, std::string& file, std::string& steps, const char* usual);
/// The commands of the family `bench`.
void add_benches(CommandLine& line, CLI::App& bench, const Launcher& launcher);

}  // namespace permafrost
