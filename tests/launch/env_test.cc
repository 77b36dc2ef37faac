#include "launch/env.h"

#include <map>

#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {
using testing::throws_error;
using Variables = std::map<std::string, std::string>;

Launcher launcher_of(const Variables& variables) {
  return Environment([&](const char* name) {
           const auto found = variables.find(name);
           return found == variables.end() ? nullptr : found->second.c_str();
         })
      .launcher();
}

TEST(Environment, BareIsOneRank) {
  const Launcher launcher = launcher_of({});
  EXPECT_EQ(launcher.name, "");
  EXPECT_EQ(launcher.rank, 0);
  EXPECT_EQ(launcher.size, 1);
  EXPECT_FALSE(launcher.several());
}

TEST(Environment, KnowsEachLauncher) {
  struct Row {
    Variables variables;
    std::string name;
    int rank, size;
  };
  for (const Row& row :
       {Row{{{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"}}, "Open MPI", 3, 4},
        Row{{{"PMI_SIZE", "2"}, {"PMI_RANK", "0"}}, "PMI", 0, 2}, Row{{{"PMIX_RANK", "5"}}, "PMIx", 5, 0},
        Row{{{"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "7"}}, "Slurm", 7, 8}}) {
    const Launcher launcher = launcher_of(row.variables);
    EXPECT_EQ(launcher.name, row.name);
    EXPECT_EQ(launcher.rank, row.rank);
    EXPECT_EQ(launcher.size, row.size);
    EXPECT_TRUE(launcher.several());
  }
}

TEST(Environment, TheFirstInTheDocumentedOrderCounts) {
  const Launcher launcher = launcher_of({{"OMPI_COMM_WORLD_SIZE", "2"},
                                         {"OMPI_COMM_WORLD_RANK", "1"},
                                         {"PMIX_RANK", "1"},
                                         {"SLURM_STEP_NUM_TASKS", "1"},
                                         {"SLURM_PROCID", "0"}});
  EXPECT_EQ(launcher.name, "Open MPI");
  EXPECT_EQ(launcher.seen, "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1");
}

TEST(Environment, ASlurmBatchScriptIsBare) {
  EXPECT_EQ(launcher_of({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}).size, 1);
}

TEST(Environment, RefusesWhatMakesNoSense) {
  EXPECT_TRUE(throws_error(
      [] {
        launcher_of({{"PMI_SIZE", "two"}, {"PMI_RANK", "0"}});
      },
      ErrorKind::kConfig, {"expected a whole number, 0 and up, in PMI_SIZE; got 'two'"}));
  EXPECT_TRUE(throws_error(
      [] {
        launcher_of({{"PMI_SIZE", "2"}, {"PMI_RANK", "-1"}});
      },
      ErrorKind::kConfig, {"in PMI_RANK; got '-1'"}));
  EXPECT_TRUE(throws_error(
      [] {
        launcher_of({{"PMI_SIZE", "2"}, {"PMI_RANK", "2"}});
      },
      ErrorKind::kConfig, {"expected a rank below the number of ranks; got PMI_SIZE=2 PMI_RANK=2"}));
  EXPECT_TRUE(throws_error(
      [] {
        launcher_of({{"PMI_SIZE", "2"}});
      },
      ErrorKind::kConfig, {"expected PMI_RANK besides PMI_SIZE=2; got nothing"}));
}

TEST(Environment, ReadsDocumentedVariablesAndNoOthers) {
  std::map<std::string, bool> read;
  for (const EnvironmentVariable& variable : environment_variables()) read[variable.name] = false;
  for (const std::string present : {"none", "OMPI_", "PMI_", "PMIX_", "SLURM_"}) {
    const Environment environment([&](const char* name) {
      EXPECT_TRUE(read.contains(name)) << name << " is not documented";
      read[name] = true;
      const bool is_size = std::string(name).ends_with("SIZE") || std::string(name).ends_with("TASKS");
      return std::string(name).starts_with(present) ? (is_size ? "1" : "0") : nullptr;
    });
    EXPECT_EQ(environment.launcher().rank, 0);
  }
  for (const auto& [name, was_read] : read) EXPECT_TRUE(was_read) << name << " is documented and never read";
}

TEST(Environment, EveryVariableIsInTheDocumentation) {
  const std::string text = read_file(PERMAFROST_SOURCE "/docs/config.md");
  for (const EnvironmentVariable& variable : environment_variables())
    EXPECT_NE(text.find(std::string("`") + variable.name + "`"), std::string::npos) << variable.name;
}

}  // namespace
}  // namespace permafrost
