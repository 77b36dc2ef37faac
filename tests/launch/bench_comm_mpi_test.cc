// `permafrost bench comm` as users start it: through launch/mpirun.sh.
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "core/base/json.h"
#include "tests/launch/run_program.h"
#include "tests/launch/scratch_folder.h"

namespace permafrost {
namespace {

const std::string kSource = PERMAFROST_SOURCE;
// Columns of the table, and keys of the JSON lines.
const std::vector<std::string> kColumns{"size", "count", "type", "redop", "time", "algbw", "busbw", "#wrong"};
const std::set<std::string> kKeys{"op",
                                  "variant",
                                  "size_bytes",
                                  "count",
                                  "type",
                                  "redop",
                                  "uneven",
                                  "time_us",
                                  "time_q1_us",
                                  "time_q3_us",
                                  "algbw_gb_per_s",
                                  "wrong",
                                  "ratio",
                                  "samples",
                                  "ranks",
                                  "mpi",
                                  "busbw_gb_per_s",
                                  "ranks_on_node",
                                  "memory_bytes",
                                  "version",
                                  "commit",
                                  "threads_per_rank",
                                  "cores",
                                  "machine",
                                  "compiler"};

class BenchCommRun : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  Outcome bench(const std::string& options) {
    const std::string json = (folder_ / "comm.jsonl").string();
    return run("bench comm --json " + json + " " + options,
               kSource + "/launch/mpirun.sh -n " + std::to_string(std::get<0>(GetParam())));
  }
  std::vector<Json> lines() {
    std::vector<Json> found;
    std::ifstream file(folder_ / "comm.jsonl");
    for (std::string line; std::getline(file, line);) found.push_back(parse_json(line));
    return found;
  }
  ScratchFolder folder_;
};

TEST_P(BenchCommRun, PrintsAndWritesEveryRowWithoutWrongElements) {
  const auto [ranks, uneven] = GetParam();
  const Outcome given = bench(std::string("--max-bytes 65536 --rounds 1") + (uneven ? " --uneven" : ""));
  ASSERT_TRUE(ends(given, 0, kColumns));
  std::map<std::string, int> rows;
  for (const Json& line : lines()) {
    std::set<std::string> keys;
    for (const auto& item : line.items()) keys.insert(item.key());
    EXPECT_EQ(keys, kKeys);
    EXPECT_EQ(line["wrong"], 0) << line;
    EXPECT_EQ(line["ranks"], ranks);
    EXPECT_EQ(line["ranks_on_node"], ranks);
    EXPECT_EQ(line["mpi"].is_null(), ranks == 1);
    EXPECT_EQ(line["ratio"].is_null(), ranks == 1) << line;
    EXPECT_GT(line["time_us"].get<double>(), 0.0);
    const std::string name = line["op"].get<std::string>() + " " + line["variant"].get<std::string>();
    ++rows[name];
    EXPECT_NE(given.output.find(line["variant"].get<std::string>()), std::string::npos);
  }
  std::map<std::string, int> want;  // 1, 4, 16, 64 KiB
  for (const char* op : {"all_gather", "reduce_scatter", "order_free", "all_reduce"})
    for (const char* variant : {"node_registered", "node_ordinary", "mpi", "plain_mpi"})
      if (ranks > 1 || std::string(variant).starts_with("node")) want[std::string(op) + " " + variant] = 4;
  EXPECT_EQ(rows, want);
}

INSTANTIATE_TEST_SUITE_P(Ranks, BenchCommRun, ::testing::Combine(::testing::Values(1, 2, 3), ::testing::Bool()));

class BenchCommErrors : public BenchCommRun {};

TEST_P(BenchCommErrors, EndAllRanksWithTheirCode) {
  EXPECT_TRUE(ends(bench("--only all_scatter"), 2, {"plain_mpi); got 'all_scatter' [param=--only]"}));
  EXPECT_TRUE(ends(run("bench comm --max-bytes 1024 --json /proc/none/x.jsonl", kSource + "/launch/mpirun.sh -n 2"), 4,
                   {"a file that can be written was expected; got /proc/none/x.jsonl [param=--json]"}));
}

INSTANTIATE_TEST_SUITE_P(Ranks, BenchCommErrors, ::testing::Values(std::tuple(2, false)));

TEST(BenchCommPage, NamesEveryKeyAndVariant) {
  const std::string page = read_file(kSource + "/docs/benchmarks/communication.md");
  for (const std::string& key : kKeys) EXPECT_NE(page.find("`" + key + "`"), std::string::npos) << key;
  for (const std::string variant : {"node_registered", "node_ordinary", "mpi", "plain_mpi"})
    EXPECT_NE(page.find("`" + variant + "`"), std::string::npos) << variant;
}

}  // namespace
}  // namespace permafrost
