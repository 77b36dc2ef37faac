// Run by mpirun: ranks are processes here, so that the system counts for each what it reads and needs.
#include <fstream>

#include "core/weights/random_weights.h"
#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"
#include "tests/launch/weights_fixture.h"

namespace permafrost {
namespace {

MpiEnvironment* environment = nullptr;

/// The number behind `name` in a file of /proc; -1 when there is none.
int64_t number_in(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name)) return std::stoll(line.substr(name.size()));
  return -1;
}

int64_t sum_over_ranks(Group& world, int64_t value) {
  const Tensor sum = flat(std::span(&value, 1));
  world.all_reduce(sum, sum, ReduceOp::kSum, StreamView::caller(), "sum").wait();
  return value;
}

/// Rank 0's text, on all ranks; at most 200 characters.
std::string from_first_rank(Group& world, std::string text) {
  text.resize(200);
  world.broadcast({text.data(), DType::kU8, Shape{200}}, 0, StreamView::caller(), "path").wait();
  return text.c_str();
}

std::vector<RandomParameter> random_parameters(const PartWeights& part, const Graph& graph) {
  std::vector<RandomParameter> parameters;
  for (size_t i = 0; i < part.params.size(); ++i) {
    const ParamInfo& info = graph.params()[static_cast<size_t>(part.params[i])];
    parameters.push_back({part.required[i].name, info.shape, Initializer::normal(0.1f)});
  }
  return parameters;
}

/// More than 64 MiB of f32, kept as bf16.
const std::vector<std::string> kLarge{"model.epalm.text.vocab=48000", "model.epalm.text.hidden=512",
                                      "model.epalm.text.word_embed_proj_dim=512", "precision.frozen_storage=BF16"};

TEST(WeightLoadingMpi, RanksTogetherReadEachByteOnceAndKeepTheirShareOnly) {
  Group& world = environment->world();
  const ScratchFolder own;
  const std::filesystem::path folder = from_first_rank(world, own.path().string());
  const auto vision = folder / "vision", text = folder / "text";
  std::vector<std::string> overrides = kLarge;
  if (world.rank() == 0) {
    const Plan plan = plan_for(quickstart(overrides).config, 1);
    const Graph& graph = plan.graphs.front();
    const RandomWeightsOptions options{DType::kF32, 1, 64'000'000};  // the text model in several files
    write_random(random_parameters(vision_weights(graph), graph), vision.string(), options);
    write_random(random_parameters(text_weights(graph), graph), text.string(), options);
  }
  world.barrier(StreamView::caller(), "files are there").wait();
  overrides.push_back("weights.vision=" + vision.string());
  overrides.push_back("weights.text=" + text.string());
  const int64_t in_files = data_bytes(vision) + data_bytes(text);
  ASSERT_GE(in_files, int64_t{64} << 20);

  const config::Resolved config = quickstart(overrides);
  const Plan plan = plan_for(config.config, world.size());
  const Buffer memory("frozen", plan.memory.node_frozen);  // of which this rank touches its ranges only
  ShardedAdamw optimizer(plan, world.rank(), {});
  const auto ranges = part_of_units(plan, world.rank(), world.size(), memory.data());
  int64_t share = optimizer.master().bytes();
  for (const FrozenRange& range : ranges) share += range.end - range.begin;

  ThreadPool pool(1);
  const int64_t read_before = number_in("/proc/self/io", "rchar:");
  const int64_t held_before = number_in("/proc/self/status", "VmRSS:") * 1024;
  const LoadedWeights loaded = load_model_weights(config.config, plan, ranges, optimizer, world, world, pool);
  const int64_t held_at_most = number_in("/proc/self/status", "VmHWM:") * 1024;
  const int64_t read = number_in("/proc/self/io", "rchar:") - read_before;
  EXPECT_EQ(sum_over_ranks(world, loaded.needed_bytes), in_files);
  EXPECT_LE(held_at_most - held_before, share + (int64_t{64} << 20));
  EXPECT_GE(held_at_most - held_before, share / 2) << "or this does not measure loading";
  if (read_before < 0) GTEST_SKIP() << "this kernel does not count bytes read";
  const double ratio = static_cast<double>(sum_over_ranks(world, read)) / static_cast<double>(in_files);
  EXPECT_GE(ratio, 1.0);
  EXPECT_LE(ratio, 1.05);
  ASSERT_EQ(loaded.lines.size(), 3u);
  EXPECT_NE(loaded.lines[2].find(" MB read (1.0"), std::string::npos) << loaded.lines[2];
  if (world.rank() == 0)
    std::printf("%d ranks: %.4f x of %.1f MB; rank 0 grew by %.1f MiB for a share of %.1f MiB\n%s\n", world.size(),
                ratio, static_cast<double>(in_files) / 1e6, static_cast<double>(held_at_most - held_before) / 1048576,
                static_cast<double>(share) / 1048576, loaded.lines[2].c_str());
}

}  // namespace
}  // namespace permafrost

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto environment = permafrost::open_mpi();
  permafrost::environment = environment.get();
  return permafrost::fail_together(environment->world(), [&] {
    int64_t failed = RUN_ALL_TESTS();
    permafrost::Group& world = environment->world();
    const permafrost::Tensor tensor = permafrost::flat(std::span(&failed, 1));
    world.all_reduce(tensor, tensor, permafrost::ReduceOp::kMax, permafrost::StreamView::caller(), "test result");
    if (failed) permafrost::fail(permafrost::ErrorKind::kInternal, "tests failed on at least one rank");
    environment->close();
  });
}
