#pragma once

namespace permafrost {

/// Runs the command that the arguments name and returns its exit code. --help and --version print and return 0; what
/// the program does not understand goes to standard error, with the exit code of a bad configuration. Throws what the
/// command throws.
int run_command_line(int argc, char** argv);

}  // namespace permafrost
