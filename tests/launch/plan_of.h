#pragma once
#include <string>

#include "core/base/json.h"
#include "tests/launch/run_program.h"

namespace permafrost {

/// Path of a configuration of the project.
inline std::string preset(const std::string& name) {
  return std::string(PERMAFROST_SOURCE) + "/configs/" + name + ".textproto";
}

/// What `permafrost plan --json` prints.
inline Json plan_of(const std::string& arguments) {
  const Outcome outcome = run("plan --json " + arguments);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  return outcome.code == 0 ? parse_json(outcome.output) : Json();
}

}  // namespace permafrost
