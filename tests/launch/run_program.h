#pragma once
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/compare.h"

namespace permafrost {

struct Outcome {
  int code = 0;
  std::string output;  // both streams
};

/// Runs the program with these arguments. `environment` stands before the command: "PMI_SIZE=2".
inline Outcome run(const std::string& arguments, const std::string& environment = "") {
  const char* program = std::getenv("PERMAFROST_PROGRAM");
  if (!program) throw Error(ErrorKind::kInternal, "PERMAFROST_PROGRAM must name the program; CTest sets it");
  const std::string command =
      "env -u OMPI_COMM_WORLD_SIZE " + environment + " " + program + " " + arguments + " 2>&1 </dev/null";
  Outcome result;
  FILE* pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> buffer{};
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
    result.output.append(buffer.data(), count);
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
  return result;
}

/// Exit code and pieces of the output.
inline ::testing::AssertionResult ends(const Outcome& run, int code, const std::vector<std::string>& parts) {
  if (run.code != code) return ::testing::AssertionFailure() << "exit code " << run.code << ": " << run.output;
  for (const std::string& part : parts)
    if (run.output.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << "no '" << part << "' in: " << run.output;
  return ::testing::AssertionSuccess();
}

}  // namespace permafrost
