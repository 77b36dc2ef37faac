#pragma once
#include <map>
#include <string>

#include "configs/config.pb.h"
#include "data/loader/text_table.h"

namespace permafrost {

/// What must stay the same for a run to continue bit for bit, by field path: the resolved configuration without what
/// changes no bit (ranks, threads, prefetch, paths, logging, checkpoints) and without train.max_steps, and a hash of
/// the samples and their tokens under "data.samples".
std::map<std::string, std::string> run_identity(const config::Config& config, const TextTable& texts);

/// What all ranks of a run must have equal, by field path: the resolved configuration without paths (which may differ
/// by machine; whether there are weight files may not), threads and logging.
std::map<std::string, std::string> shared_settings(const config::Config& config);

/// Throws kConfig naming every field in which the two differ, with both values.
void check_same_run(const std::map<std::string, std::string>& stored, const std::map<std::string, std::string>& now);

}  // namespace permafrost
