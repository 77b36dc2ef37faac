#pragma once
#include "parallel/group/group.h"
#include "parallel/group/moved_bytes.h"

namespace permafrost::testing {

inline const StreamView kHere = StreamView::caller();

/// What the other ranks of a group under test contribute.
enum class Others {
  kTakePart,  ///< every rank runs the same body
  kSilent,    ///< only this rank exists: others hold the neutral element (the recording group)
};

/// The contract of parallel/group/group.h, checked on one rank, with tensors on the device in use (use_device); every
/// rank of the group must call it. Failures are GoogleTest failures of the calling thread or process.
void check_collectives(Group& group, Others others);  ///< every collective x dtype x op x counts x in place
void check_streams(Group& group, Others others);      ///< the same on a queue
void check_point_to_point(Group& group);              ///< a ring of messages (ranks that take part only)
void check_split(Group& group);                       ///< halves, reversed order, left-out ranks (taking part only)
/// Whether reductions of uneven parts read what parallel/group/moved_bytes.h says (a hierarchy reads what its nodes and
/// lanes do).
enum class MovedClosedForm { kFlat, kNodesAndLanes };
void check_moved_bytes(Group& group, const MovedBytes& moved,
                       MovedClosedForm form);  ///< `moved` is the group's counter
void check_argument_errors(Group& group);      ///< kinds and messages; nothing is exchanged

}  // namespace permafrost::testing
