#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "parallel/group/group.h"
#include "parallel/group/moved_bytes.h"

namespace permafrost {

struct InprocOptions {
  std::chrono::milliseconds timeout{std::chrono::seconds(60)};  ///< longest wait of one call for the other ranks
  std::span<MovedBytes> moved{};                                ///< one per rank, or empty
};

/// Groups whose ranks are threads of this process and read each other's memory. Beyond the contract of Group, a call
/// that differs between ranks (operation, dtype, elements, counts, root, tag) is an error on all of them.
/// Element r belongs to rank r; each may be used by one thread at a time.
std::vector<std::unique_ptr<Group>> make_inproc_groups(int ranks, const InprocOptions& options = {});

/// A group of one, for a program without a launcher.
std::unique_ptr<Group> make_solo_group();

/// Runs body(group) on `ranks` threads. A rank that throws takes the others down; the first failing rank's own
/// exception is rethrown here after all threads ended.
void run_inproc(int ranks, const std::function<void(Group&)>& body, const InprocOptions& options = {});

}  // namespace permafrost
