#pragma once
#include <functional>
#include <string>
#include <vector>

namespace permafrost {

/// One environment variable that Permafrost looks at; nothing else is read, and nothing below launch/ reads any.
struct EnvironmentVariable {
  const char* name;
  const char* meaning;
};
const std::vector<EnvironmentVariable>& environment_variables();

/// What a launcher says about the ranks it started.
struct Launcher {
  std::string name;  ///< "Open MPI", "PMI", "PMIx", "Slurm"; empty: started bare
  int rank = 0;
  int size = 1;      ///< 0: the launcher does not say; MPI will
  std::string seen;  ///< "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2", for the log

  /// More ranks than this one, as far as the launcher says.
  bool several() const { return size != 1; }
};

/// The only reader of environment variables.
class Environment {
 public:
  /// Value of a variable, null when it is not set.
  using Lookup = std::function<const char*(const char*)>;
  explicit Environment(Lookup lookup) : lookup_(std::move(lookup)) {}
  static Environment of_process();

  /// Asks, in this order: Open MPI, PMI (MPICH, Intel MPI), PMIx, Slurm. A Slurm batch script that starts the program
  /// without srun is bare: only the variables of a step count.
  /// Errors: kConfig when a variable is no number, or a rank is not below its size.
  Launcher launcher() const;

 private:
  int number(const char* name, Launcher& launcher) const;
  bool has(const char* name) const { return lookup_(name) != nullptr; }
  Lookup lookup_;
};

}  // namespace permafrost
