// The permafrost program. This file alone catches exceptions, and turns them into exit codes.
#include <glog/logging.h>

#include <iostream>
#include <new>

#include "core/base/check.h"
#include "launch/command.h"

namespace {

using namespace permafrost;

struct LogLevel {
  const char* name;
  int least;  // glog's severity
};
constexpr LogLevel kLogLevels[] = {{"info", google::GLOG_INFO}, {"warning", google::GLOG_WARNING}, {"error", google::GLOG_ERROR}};

void start_logging(const char* program) {
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = google::GLOG_WARNING;
  google::InitGoogleLogging(program);
}

void add_log_option(CLI::App& app, std::string& level) {
  app.add_option("--log", level, "Least important messages to write to standard error: info, warning or error")
      ->capture_default_str()
      ->type_name("LEVEL")
      ->check(CLI::IsMember({"info", "warning", "error"}));
}

/// Usage errors are the user's, and end with the code of a bad configuration; --help and --version end well.
int usage(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);
  const CLI::App* where = &app;
  while (!where->get_subcommands().empty()) where = where->get_subcommands().front();
  std::string command;
  for (const CLI::App* at = where; at; at = at->get_parent()) command = at->get_name() + (command.empty() ? "" : " ") + command;
  std::string what = error.what();
  if (where == &app && dynamic_cast<const CLI::RequiredError*>(&error)) {  // whose own words name no command
    what = "expected a command:";
    for (const CLI::App* known : app.get_subcommands({})) what += " " + known->get_name();
  }
  std::cerr << command << ": " << what << "\nSee " << command << " --help\n";
  return exit_code(ErrorKind::kConfig);
}

int run(int argc, char** argv) {
  CLI::App app("Trains small modules on top of large frozen pretrained models", "permafrost");
  app.set_version_flag("--version", std::string("permafrost ") + PERMAFROST_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  std::string level = "warning";
  add_log_option(app, level);
  CommandLine program{app, Environment::of_process().launcher(), {}};
  add_train_command(program);
  add_plan_command(program);
  add_probe_command(program);
  add_weights_command(program);
  add_info_command(program);
  add_data_command(program);
  add_bench_command(program);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return usage(app, error);
  }
  for (const LogLevel& known : kLogLevels)
    if (level == known.name) FLAGS_minloglevel = known.least;
  return program.action();
}

/// For errors outside of a group; inside, fail_together has spoken already.
int report(const Error& error) {
  Launcher launcher;
  try {
    launcher = Environment::of_process().launcher();
  } catch (const Error&) {  // that may be the very error to report
  }
  const std::string line = concat("permafrost: ", launcher.several() ? concat("rank ", launcher.rank, ": ") : "", error.what());
  std::cerr << line + "\n" << std::flush;  // in one piece, so that lines of several ranks do not mix
  return exit_code(error.kind());
}

}  // namespace

int main(int argc, char** argv) {
  start_logging(argv[0]);
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    return report(Error(ErrorKind::kInternal, "out of memory"));
  } catch (const std::exception& error) {
    return report(Error(ErrorKind::kInternal, error.what()));
  }
}
