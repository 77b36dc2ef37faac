#include "launch/env.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "core/base/check.h"

namespace permafrost {

const std::vector<EnvironmentVariable>& environment_variables() {
  static const std::vector<EnvironmentVariable> variables = {
      {"OMPI_COMM_WORLD_RANK", "rank of this process, set by Open MPI's mpirun"},
      {"OMPI_COMM_WORLD_SIZE", "ranks in all, set by Open MPI's mpirun"},
      {"PMI_RANK", "rank of this process, set by the launchers of MPICH and Intel MPI and by srun --mpi=pmi2"},
      {"PMI_SIZE", "ranks in all, set by the same"},
      {"PMIX_RANK", "rank of this process, set by PMIx launchers and by srun --mpi=pmix"},
      {"SLURM_PROCID", "rank of this process, set by srun"},
      {"SLURM_STEP_NUM_TASKS", "ranks in all, set by srun"},
  };
  return variables;
}

Environment Environment::of_process() {
  return Environment([](const char* name) { return static_cast<const char*>(std::getenv(name)); });
}

int Environment::number(const char* name, Launcher& launcher) const {
  const char* text = lookup_(name);
  if (!text) fail(ErrorKind::kConfig, "environment: expected ", name, " besides ", launcher.seen, "; got nothing");
  launcher.seen += concat(launcher.seen.empty() ? "" : " ", name, "=", text);
  int value = 0;
  const char* end = text + std::strlen(text);
  const auto result = std::from_chars(text, end, value);
  if (result.ec != std::errc() || result.ptr != end || value < 0)
    fail(ErrorKind::kConfig, "environment: expected a whole number, 0 and up, in ", name, "; got '", text, "'");
  return value;
}

Launcher Environment::launcher() const {
  struct Pair {
    const char* name;
    const char* size;
    const char* rank;
  };
  Launcher launcher;
  for (const Pair& pair :
       {Pair{"Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, Pair{"PMI", "PMI_SIZE", "PMI_RANK"},
        Pair{"PMIx", nullptr, "PMIX_RANK"}, Pair{"Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}}) {
    if (!has(pair.size ? pair.size : pair.rank)) continue;
    launcher.name = pair.name;
    launcher.size = pair.size ? number(pair.size, launcher) : 0;
    launcher.rank = number(pair.rank, launcher);
    if (pair.size && launcher.rank >= launcher.size)
      fail(ErrorKind::kConfig, "environment: expected a rank below the number of ranks; got ", launcher.seen);
    return launcher;
  }
  return launcher;
}

}  // namespace permafrost
