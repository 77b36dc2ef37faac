#include "parallel/group/fail_together.h"

#include <cstdio>
#include <iostream>

#include "core/base/check.h"

namespace permafrost {

namespace {

int fail_now(Group& group, const Error& error) {
  std::cout.flush();
  std::fflush(stdout);
  // One write, so that lines of different ranks do not mix.
  std::fputs((failure_line(group.rank(), group.size(), error) + "\n").c_str(), stderr);
  std::fflush(stderr);
  group.abort(error);
  return exit_code(error.kind());
}

}  // namespace

std::string failure_line(int rank, int size, const Error& error) {
  return concat("permafrost: rank ", rank, "/", size, ": ", error.what());
}

int fail_together(Group& group, const std::function<void()>& body) {
  try {
    body();
    return 0;
  } catch (const Error& error) {
    return fail_now(group, error);
  } catch (const std::exception& error) {
    return fail_now(group, Error(ErrorKind::kInternal, error.what()));
  }
}

void tell_before_unwinding(Group& group, const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    if (group.size() > 1) fail_now(group, error);
    throw;
  } catch (const std::exception& error) {
    if (group.size() > 1) fail_now(group, Error(ErrorKind::kInternal, error.what()));
    throw;
  }
}

}  // namespace permafrost
