#pragma once
#include <functional>
#include <string>

#include "parallel/group/group.h"

namespace permafrost {

/// "permafrost: rank 1/3: <message>", the last line a failing rank writes.
std::string failure_line(int rank, int size, const Error& error);

/// Runs body() as this rank's work. Returns 0, or the exit code of what it threw after writing the failure line to
/// standard error and taking the other ranks down (Group::abort, which for processes does not return).
///
/// With the MPI backend: the failing rank tells every other rank its reason. Ranks that wait in a collective throw at
/// once; ranks that compute are given 2 s to reach one, and 0.5 s once a collective of theirs has thrown on another
/// thread, then their listening thread speaks for them. Each answers that it has heard and writes its line; when all
/// have answered, or after 5 s, and 0.7 s later for the writing, MPI_Abort ends everything with the first failure's
/// exit code; the others of its machine go by themselves when the failing one is gone, those of other machines when the
/// launcher sends SIGTERM. A rank that dies without a word (kill -9, a crash) is seen at once by the ranks of its
/// machine, which watch each other's processes and tell the rest; each writes its line with that rank's number, within
/// about 0.2 s unless it is unwinding, and ends when the launcher sends SIGTERM, or 1.2 s behind its line. SIGTERM,
/// where the program does not handle it, acts 0.2 s late for this: a launcher sends it to the others of a dead rank.
///
/// A Stream that carries collectives must outlive body(): its destructor waits for its work, which without this
/// rank's word about the failure would wait for the time limit.
int fail_together(Group& group, const std::function<void()>& body);

/// Runs body() within that of fail_together, and tells the others of a failure before more of the stack is unwound:
/// what is on it may wait for other ranks (a thread in a collective, say). Of processes it then does not return; a
/// group of one passes the error on.
void tell_before_unwinding(Group& group, const std::function<void()>& body);

}  // namespace permafrost
