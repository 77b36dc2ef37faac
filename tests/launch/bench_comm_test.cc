// What `permafrost bench comm` measures, how it checks results, and what it writes; ranks are threads.
#include "launch/bench/bench_comm.h"

#include <fstream>
#include <numeric>
#include <set>
#include <sstream>

#include "launch/bench/comm_call.h"
#include "parallel/group/inproc_group.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using bench::CommCase;
using bench::CommOp;
using bench::CommPlan;
using bench::plan_comm;
using testing::throws_error;

const std::vector<std::string> kNames{"good", "bad"};

/// Does what another group does, and then damages the first `damaged` elements of rank 1's result. With idle: nothing.
class DamagingGroup final : public Group {
 public:
  DamagingGroup(Group& inner, int64_t damaged, bool idle) : inner_(inner), damaged_(damaged), idle_(idle) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::unique_ptr<Group> split(int color, int key, std::string_view tag, Waiting waiting) override {
    return inner_.split(color, key, tag, waiting);
  }
  Event barrier(StreamView stream, std::string_view tag) override { return inner_.barrier(stream, tag); }
  Event all_gather(const Tensor& part, const Tensor& all, std::span<const int64_t> counts, StreamView stream,
                   std::string_view tag) override {
    if (!idle_) inner_.all_gather(part, all, counts, stream, tag).wait();
    return damage(all);
  }
  Event reduce_scatter(const Tensor& all, const Tensor& part, std::span<const int64_t> counts, ReduceOp op,
                       StreamView stream, std::string_view tag) override {
    if (!idle_) inner_.reduce_scatter(all, part, counts, op, stream, tag).wait();
    return damage(part);
  }
  Event all_reduce(const Tensor& in, const Tensor& out, ReduceOp op, StreamView stream, std::string_view tag) override {
    if (!idle_) inner_.all_reduce(in, out, op, stream, tag).wait();
    return damage(out);
  }
  Event broadcast(const Tensor& data, int root, StreamView stream, std::string_view tag) override {
    return inner_.broadcast(data, root, stream, tag);
  }
  Event send(const Tensor& data, int to, StreamView stream, std::string_view tag) override {
    return inner_.send(data, to, stream, tag);
  }
  Event recv(const Tensor& data, int from, StreamView stream, std::string_view tag) override {
    return inner_.recv(data, from, stream, tag);
  }
  std::optional<Error> async_error() const override { return inner_.async_error(); }
  void abort(const Error& reason) noexcept override { inner_.abort(reason); }

 private:
  Event damage(const Tensor& result) const {
    if (rank() != 1) return Event();
    for (int64_t i = 0; i < damaged_; ++i)
      if (result.dtype() == DType::kI64)
        result.data<int64_t>()[i] ^= int64_t{1} << 57;  // off by one unit of the values, without overflow
      else
        result.data<float>()[i] += 1.0f;
    return Event();
  }

  Group& inner_;
  int64_t damaged_;
  bool idle_;
};

struct Written {
  std::string table;
  std::vector<Json> lines;
  std::string error;  // of the run; empty: none
};

/// The whole command on threads, with the variants of kNames: one group that works and one that damages.
Written run_bench(const BenchCommOptions& options, int ranks, int64_t damaged, bool idle = false) {
  std::ostringstream table;
  Written result;
  try {
    run_inproc(ranks, [&](Group& world) {
      const CommPlan plan = plan_comm(options, world.size(), kNames);
      const auto good = world.split(0, world.rank(), "good");
      const auto inner = world.split(0, world.rank(), "bad");
      DamagingGroup bad(*inner, damaged, idle);
      std::vector<std::byte> memory(static_cast<size_t>(plan.memory_bytes()) + 64);
      auto* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
      ThreadPool pool(1);
      const CommBench setup{world,
                            Context{Device::cpu(), &pool, StreamView::caller()},
                            {{"good", good.get(), aligned, true}, {"bad", &bad, aligned, false}},
                            "good",
                            {{"machine", "threads"}}};
      bench_comm(options, plan, setup, table);
    });
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kPeer) << error.what();
    result.error = error.what();
  }
  result.table = table.str();
  std::ifstream file(options.json_path);
  for (std::string line; std::getline(file, line);) result.lines.push_back(parse_json(line));
  return result;
}

BenchCommOptions small(const std::string& json_path) {
  BenchCommOptions options;
  options.json_path = json_path;
  options.max_bytes = 16 << 10;
  options.rounds = 2;
  return options;
}

const CommCase& find_case(const CommPlan& plan, CommOp op, int64_t size) {
  for (const CommCase& row : plan.cases)
    if (row.op == op && row.size_bytes() == size) return row;
  throw Error(ErrorKind::kInternal, concat("no case ", to_string(op), " of ", size, " bytes"));
}

TEST(BenchCommPlan, SizesAreThoseOfNcclTests) {
  BenchCommOptions options;
  const CommPlan plan = plan_comm(options, 3, kNames);
  EXPECT_EQ(plan.cases.size(), 4u * 10u);  // 1 KiB ... 256 MiB
  // 1024 bytes / 3 ranks, down to multiples of 16: 336 bytes each. An all-reduce has no parts.
  EXPECT_EQ(find_case(plan, CommOp::kAllGather, 1008).nccl_count(), 84);
  EXPECT_EQ(find_case(plan, CommOp::kReduceScatter, 1008).counts, (std::vector<int64_t>{84, 84, 84}));
  EXPECT_EQ(find_case(plan, CommOp::kOrderFree, 2016).nccl_count(), 84);
  EXPECT_EQ(find_case(plan, CommOp::kAllReduce, 1024).nccl_count(), 256);
  EXPECT_DOUBLE_EQ(find_case(plan, CommOp::kAllGather, 1008).bus_factor(), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(find_case(plan, CommOp::kOrderFree, 2016).bus_factor(), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(find_case(plan, CommOp::kAllReduce, 1024).bus_factor(), 4.0 / 3.0);
  EXPECT_TRUE(plan.cases.front().given_counts().empty());
  const int64_t order_free = 2 * ((int64_t{256} << 20) / 3 / 16 * 16) * 3;
  EXPECT_EQ(plan.input_bytes, (order_free + 4095) / 4096 * 4096);
  EXPECT_EQ(plan.output_bytes, int64_t{256} << 20);
}

TEST(BenchCommPlan, UnevenPartsGrowWithTheRank) {
  BenchCommOptions options;
  options.uneven = true;
  const CommPlan plan = plan_comm(options, 3, kNames);
  EXPECT_EQ(find_case(plan, CommOp::kReduceScatter, 1024).counts, (std::vector<int64_t>{42, 86, 128}));
  for (const CommCase& row : plan.cases) {
    EXPECT_EQ(std::accumulate(row.counts.begin(), row.counts.end(), int64_t{0}), row.elements);
    EXPECT_EQ(row.given_counts().size(), 3u);
  }
}

TEST(BenchCommPlan, OnlyChoosesRowsByName) {
  BenchCommOptions options = small("");
  options.only = "order_free bad";
  const CommPlan plan = plan_comm(options, 2, kNames);
  EXPECT_EQ(plan.cases.size(), 3u);
  EXPECT_FALSE(plan.uses(0));
  EXPECT_TRUE(plan.uses(1));
  options.only = "all_";
  EXPECT_EQ(plan_comm(options, 2, kNames).cases.size(), 6u);
}

TEST(BenchCommPlan, RefusesWhatMakesNoSense) {
  const auto refused = [](auto change, const std::vector<std::string>& parts) {
    BenchCommOptions options;
    change(options);
    return throws_error([&] { plan_comm(options, 3, kNames); }, ErrorKind::kConfig, parts);
  };
  EXPECT_TRUE(refused([](auto& o) { o.min_bytes = o.max_bytes + 1; },
                      {"must not exceed the largest (268435456 bytes); got 268435457", "[param=--min-bytes]"}));
  EXPECT_TRUE(refused([](auto& o) { o.min_bytes = 47; }, {"48 for 3 ranks; got 47", "[param=--min-bytes]"}));
  EXPECT_TRUE(refused([](auto& o) { o.max_bytes = bench::kLargestCommBytes + 1; },
                      {"end at 4294967296 bytes", "got 4294967297", "[param=--max-bytes]"}));
  EXPECT_TRUE(refused([](auto& o) { o.factor = 1; }, {"at least 2; got 1", "[param=--factor]"}));
  EXPECT_TRUE(refused([](auto& o) { o.rounds = 0; }, {"at least 1 round", "[param=--rounds]"}));
  EXPECT_TRUE(refused([](auto& o) { o.only = "all_scatter"; }, {"all_gather, reduce_scatter, order_free, all_reduce",
                                                                "good, bad", "got 'all_scatter'", "[param=--only]"}));
}

TEST(BenchCommPlan, RefusesMoreMemoryThanThereIs) {
  BenchCommOptions options = small("");
  const CommPlan plan = plan_comm(options, 2, kNames);
  // Per rank: input 32 KiB (order-free sums), output 16 KiB, slice 8 KiB; MPI's own 2 x 32 KiB.
  const int64_t without = 2 * (2 * (48 << 10) + (8 << 10)), with = without + 2 * (64 << 10);
  EXPECT_EQ(bench::comm_bytes(plan, 2, 2, false), without);
  EXPECT_EQ(bench::comm_bytes(plan, 2, 2, true), with);
  bench::check_comm_room(with, with, 2, options.max_bytes);
  EXPECT_TRUE(throws_error(
      [&] { bench::check_comm_room(with, with - 1, 2, options.max_bytes); }, ErrorKind::kStorage,
      {"sizes up to 16384 bytes take 344064 bytes", "2 ranks", "got 344063 bytes free", "[param=--max-bytes]"}));
}

class BenchComm : public ::testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(BenchComm, EveryResultIsRightAndEveryFigureIsWritten) {
  const auto [ranks, uneven] = GetParam();
  const ScratchFolder folder;
  BenchCommOptions options = small((folder / "comm.jsonl").string());
  options.uneven = uneven;
  const Written run = run_bench(options, ranks, 0);
  EXPECT_EQ(run.error, "");
  ASSERT_EQ(run.lines.size(), 2u * 4u * 3u);
  const std::set<std::string> keys{"op",      "variant", "size_bytes",     "count",          "type",   "redop",
                                   "uneven",  "time_us", "time_q1_us",     "time_q3_us",     "wrong",  "ratio",
                                   "samples", "ranks",   "algbw_gb_per_s", "busbw_gb_per_s", "machine"};
  std::set<std::string> ops;
  for (const Json& line : run.lines) {
    std::set<std::string> found;
    for (const auto& item : line.items()) found.insert(item.key());
    EXPECT_EQ(found, keys);
    ops.insert(line["op"]);
    EXPECT_EQ(line["wrong"], 0);
    EXPECT_EQ(line["ranks"], ranks);
    EXPECT_EQ(line["uneven"], uneven);
    EXPECT_EQ(line["samples"], 2 * 16);
    EXPECT_EQ(line["type"], line["op"] == "order_free" ? "int64" : "float");
    EXPECT_EQ(line["redop"], line["op"] == "all_gather" ? "none" : "sum");
    const double time = line["time_us"], algbw = line["algbw_gb_per_s"], busbw = line["busbw_gb_per_s"];
    EXPECT_GT(time, 0.0);
    EXPECT_LE(line["time_q1_us"], line["time_us"]);
    EXPECT_LE(line["time_us"], line["time_q3_us"]);
    EXPECT_NEAR(algbw, line["size_bytes"].get<double>() / time / 1e3, 1e-9 * algbw);
    const double factor = (line["op"] == "all_reduce" ? 2.0 : 1.0) * (ranks - 1) / ranks;
    EXPECT_NEAR(busbw, factor * algbw, 1e-9 * algbw);
    EXPECT_TRUE(line["variant"] != "good" || line["ratio"] == 1.0);
    EXPECT_GT(line["ratio"].get<double>(), 0.0);
  }
  EXPECT_EQ(ops, (std::set<std::string>{"all_gather", "reduce_scatter", "order_free", "all_reduce"}));
  for (const char* word : {"size", "count", "type", "redop", "time", "algbw", "busbw", "#wrong", "(B)", "(elements)",
                           "(us)", "(GB/s)", "good", "bad"})
    EXPECT_NE(run.table.find(word), std::string::npos) << word;
}

INSTANTIATE_TEST_SUITE_P(Ranks, BenchComm, ::testing::Combine(::testing::Values(1, 2, 3), ::testing::Bool()));

TEST(BenchCommCheck, CountsDamagedElementsAndEndsWithAnError) {
  const ScratchFolder folder;
  const Written run = run_bench(small((folder / "comm.jsonl").string()), 2, 3);
  // Three elements of one rank, in the checks before and after the timing, 4 operations x 3 sizes.
  EXPECT_NE(run.error.find("got 72 wrong, the first in all_gather bad of 1024 bytes"), std::string::npos) << run.error;
  ASSERT_EQ(run.lines.size(), 24u);
  for (const Json& line : run.lines) EXPECT_EQ(line["wrong"], line["variant"] == "bad" ? 6 : 0) << line;
}

TEST(BenchCommCheck, AResultThatNeverCameIsWrongEverywhere) {
  const ScratchFolder folder;
  BenchCommOptions options = small((folder / "comm.jsonl").string());
  options.min_bytes = options.max_bytes = 1024;
  for (const char* only : {"all_gather", "reduce_scatter", "all_reduce"}) {
    options.only = std::string(only) + " bad";
    const Written run = run_bench(options, 2, 0, true);
    ASSERT_EQ(run.lines.size(), 1u);
    const int elements = std::string(only) == "reduce_scatter" ? 256 : 512;  // both ranks together
    EXPECT_EQ(run.lines[0]["wrong"], 2 * elements) << only;
    EXPECT_TRUE(run.lines[0]["ratio"].is_null()) << "the base was left out";
  }
}

TEST(BenchCommCheck, AFileThatCannotBeWrittenIsAStorageError) {
  const auto world = make_solo_group();
  BenchCommOptions options = small("/proc/none/comm.jsonl");
  const CommPlan plan = plan_comm(options, 1, kNames);
  const CommBench setup{*world, Context{}, {}, "good", {}};
  std::ostringstream table;
  EXPECT_TRUE(throws_error(
      [&] { bench_comm(options, plan, setup, table); }, ErrorKind::kStorage,
      {"bench comm: a file that can be written was expected; got /proc/none/comm.jsonl", "[param=--json]"}));
}

}  // namespace
}  // namespace permafrost
