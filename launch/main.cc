// The permafrost program. This file alone catches exceptions, and turns them into exit codes.
#include <glog/logging.h>

#include <iostream>
#include <new>

#include "core/base/check.h"
#include "launch/command_line.h"
#include "launch/env.h"

namespace {

using namespace permafrost;

void start_logging(const char* program) {
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = google::GLOG_WARNING;
  google::InitGoogleLogging(program);
}

/// For errors outside of a group; inside, fail_together has spoken already.
int report(const Error& error) {
  Launcher launcher;
  try {
    launcher = Environment::of_process().launcher();
  } catch (const Error&) {  // that may be the very error to report
  }
  const std::string line =
      concat("permafrost: ", launcher.several() ? concat("rank ", launcher.rank, ": ") : "", error.what());
  std::cerr << line + "\n" << std::flush;  // in one piece, so that lines of several ranks do not mix
  return exit_code(error.kind());
}

}  // namespace

int main(int argc, char** argv) {
  start_logging(argv[0]);
  try {
    return run_command_line(argc, argv);
  } catch (const Error& error) {
    return report(error);
  } catch (const std::bad_alloc&) {
    return report(Error(ErrorKind::kInternal, "out of memory"));
  } catch (const std::exception& error) {
    return report(Error(ErrorKind::kInternal, error.what()));
  }
}
