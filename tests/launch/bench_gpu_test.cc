// `permafrost bench kernels --device cuda`: every row runs, counts what it should, and is written. Figures of an
// emulation mean nothing and are not looked at.
#include "launch/bench/bench_gpu.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/device/cuda.h"
#include "launch/bench/gpu_rows.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

std::vector<OrderedJson> lines_of(const std::string& path) {
  std::vector<OrderedJson> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(OrderedJson::parse(line));
  return lines;
}

TEST(BenchGpu, EveryRowRunsAndIsWritten) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  const ScratchFolder folder;
  const std::string path = (folder / "rows.jsonl").string();
  Stream stream(Device::cuda(0));
  std::ostringstream out;
  bench_gpu({.json_path = path, .only = "", .tiny = true}, stream, out);
  std::set<std::string> wanted;
  for (const bench::GpuWorkload& workload : bench::gpu_workloads(true)) {
    for (const bench::GpuCase& each : bench::product_cases(workload)) wanted.insert(each.row.name());
    for (const bench::GpuCase& each : bench::memory_cases(workload)) wanted.insert(each.row.name());
  }
  std::set<std::string> seen;
  const std::vector<OrderedJson> lines = lines_of(path);
  ASSERT_FALSE(lines.empty());
  for (const char* key : {"matmul_flops", "matmul_flops_tf32", "matmul_flops_f32", "copy_bytes_per_s"})
    EXPECT_GT(lines[0].at(key).get<double>(), 0) << key;
  for (const OrderedJson& line : lines) {
    if (line["kind"] != "product" && line["kind"] != "memory") continue;
    seen.insert(line["workload"].get<std::string>() + " " + line["part"].get<std::string>() + " " +
                line["pass"].get<std::string>());
    EXPECT_GT(line["seconds"].get<double>(), 0) << line;
    EXPECT_GT(line["share"].get<double>(), 0) << line;
    EXPECT_EQ(line["timed"], "device") << line;
  }
  EXPECT_EQ(seen, wanted);
  EXPECT_NE(out.str().find("e4 text fc1 dx"), std::string::npos);
}

/// PERMAFROST_BENCH_ROWS: a file for the rows, which the test of tests/gpu/run.sh makes its report from.
TEST(BenchGpu, OnlyWhatWasAskedFor) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  const ScratchFolder folder;
  const char* wanted = std::getenv("PERMAFROST_BENCH_ROWS");
  const std::string path = wanted ? wanted : (folder / "rows.jsonl").string();
  Stream stream(Device::cuda(0));
  std::ostringstream out;
  bench_gpu({.json_path = path, .only = "e3 projector", .tiny = true}, stream, out);
  int rows = 0;
  for (const OrderedJson& line : lines_of(path)) rows += line["kind"] == "product" || line["kind"] == "memory";
  EXPECT_EQ(rows, 2);
}

TEST(BenchGpu, AFileThatCannotBeWritten) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  Stream stream(Device::cuda(0));
  std::ostringstream out;
  try {
    bench_gpu({.json_path = "/nowhere/rows.jsonl", .only = "", .tiny = true}, stream, out);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kStorage);
    EXPECT_NE(std::string(error.what()).find("/nowhere/rows.jsonl"), std::string::npos) << error.what();
  }
}

TEST(BenchGpu, TimesCallsAsAGraph) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  Stream stream(Device::cuda(0));
  const Buffer memory("memory", 256, stream.device());
  std::vector<int64_t> turns;
  bench::GpuStopwatch watch(stream, 3, 0);
  const auto takes = watch.takes({[&](int64_t turn) {
    turns.push_back(turn);
    cuda::fill(*stream.queue(), memory.data(), 1, 256);
  }});
  ASSERT_EQ(takes.size(), 1U);
  EXPECT_FALSE(takes[0].host_shows);
  ASSERT_EQ(takes[0].seconds.size(), 3U);
  for (const double seconds : takes[0].seconds) EXPECT_GT(seconds, 0);
  EXPECT_EQ(turns, (std::vector<int64_t>{0, 1})) << "once by itself, once into the graph";
}

TEST(BenchGpu, TimesFromTheHostWhatCannotBeCaptured) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  Stream stream(Device::cuda(0));
  const Buffer memory("memory", 256, stream.device());
  int given = 0;
  bench::GpuStopwatch watch(stream, 2, 0);
  const auto takes = watch.takes({[&](int64_t) {
                                    cuda::fill(*stream.queue(), memory.data(), 1, 256);
                                    stream.synchronize();  // no capture allows it
                                    ++given;
                                  },
                                  [&](int64_t) { cuda::fill(*stream.queue(), memory.data(), 2, 256); }});
  EXPECT_TRUE(takes.at(0).host_shows);
  for (const double seconds : takes[0].seconds) EXPECT_GT(seconds, 0);
  EXPECT_EQ(given, 3) << "once before the attempt, and two takes";
  EXPECT_FALSE(takes.at(1).host_shows) << "the stream is fit for the next capture";
}

TEST(BenchGpu, ACallThatFailsWhileItIsCaptured) {
  if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  Stream stream(Device::cuda(0));
  bench::GpuStopwatch watch(stream, 1, 0);
  int calls = 0;
  EXPECT_TRUE(testing::throws_error(
      [&] {
        watch.takes({[&](int64_t) {
          if (++calls == 2) fail(ErrorKind::kInvalidArgument, "call: must be the first; got the second");
        }});
      },
      ErrorKind::kInvalidArgument, {"call: must be the first; got the second"}));
  EXPECT_FALSE(watch.takes({[](int64_t) {}}).at(0).host_shows) << "the stream is fit for use afterwards";
}

/// FLOPs of a step by parameters and tokens: what makes 4N and 2N mean something.
TEST(BenchGpu, CountsFlopsByParametersAndTokens) {
  for (const bench::GpuWorkload& w : bench::gpu_workloads(false)) {
    double frozen = 0, vision = 0, trained = 0;
    for (const bench::GpuCase& each : bench::product_cases(w)) {
      const bench::GpuRow& row = each.row;
      if (row.freezing == "4N" && row.part != "text lm_head") frozen += row.per_step * row.flops;
      if (row.freezing == "2N") vision += row.per_step * row.flops;
      if (row.freezing == "6N") trained += row.per_step * row.flops;
    }
    const auto of = [](int64_t n) { return static_cast<double>(n); };
    // Of a decoder layer: four square matrices and two of the feed-forward part.
    const double n = of(w.layers) * (4 * of(w.width * w.width) + 2 * of(w.width * w.hidden));
    EXPECT_DOUBLE_EQ(frozen, 2 * n * of(w.rows()) * (1 + of(w.backward_layers) / of(w.layers))) << w.name;
    // Of an encoder block: three for queries, keys and values, nine behind the attention, where of the last block of E1
    // there are class tokens alone.
    const double square = of(w.vision_width * w.vision_width), tokens = of(w.batch * (w.patches + 1));
    const double v =
        of(w.vision_layers) * 12 * square * tokens - (w.class_tokens ? 9 * square * (tokens - of(w.batch)) : 0);
    EXPECT_DOUBLE_EQ(vision, 2 * v + (w.vision_layers ? 2 * of(w.batch * w.patches) * 768 * of(w.vision_width) : 0))
        << w.name;
    EXPECT_GT(trained, 0) << w.name;
  }
}

TEST(BenchGpu, ListsQueriesKeysAndValuesAsOneProduct) {
  std::set<std::string> shapes;
  for (const bench::GpuCase& each : bench::product_cases(bench::gpu_workloads(false).front()))
    if (each.row.part == "text qkv" || each.row.part == "text out")
      shapes.insert(each.row.name() + " " + each.row.shape);
  EXPECT_EQ(shapes, (std::set<std::string>{
                        "e1-2.7b text out dx 960 x 2560 x 2560", "e1-2.7b text out forward 960 x 2560 x 2560",
                        "e1-2.7b text qkv dx 960 x 7680 x 2560", "e1-2.7b text qkv forward 960 x 7680 x 2560"}));
}

}  // namespace
}  // namespace permafrost
