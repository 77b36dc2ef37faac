#include "launch/about_run.h"

#include "core/device/cpu_features.h"
#include "generated_version.h"
#include "launch/machine.h"
#include "parallel/group/node/free_memory.h"

namespace permafrost {

OrderedJson about_run(const Runtime& runtime) {
  return {{"ranks_on_node", runtime.ranks_on_node()},
          {"threads_per_rank", runtime.pool.threads()},
          {"cores", usable_cores()},
          {"machine", processor_name()},
          {"memory_bytes", memory_limit_bytes()},
          {"mpi", runtime.mpi.empty() ? OrderedJson() : OrderedJson(runtime.mpi)},
          {"version", PERMAFROST_VERSION},
          {"commit", std::string(kCommit).empty() ? OrderedJson() : OrderedJson(kCommit)},
          {"compiler", "g++ " __VERSION__}};
}

}  // namespace permafrost
