// Policies of frozen weights as users start them, through launch/mpirun.sh: a run goes on with other ranks and
// policies, too little memory, ranks that do not agree, and more ranks than there is to share out. Nodes are pretended:
// ranks of a machine that share nothing.
#include <chrono>
#include <regex>

#include "configs/load.h"
#include "launch/training/plan_setup.h"
#include "tests/launch/training_fixture.h"
#include "tests/launch/weights_fixture.h"

namespace permafrost {
namespace {

using Overrides = std::vector<std::string>;

/// Only the connectors train.
const Overrides kFrozen{"freeze[0].pattern=connector*", "freeze+={pattern: \"*\" trainable: false}"};
const Overrides kSharded{"parallel.frozen_policy=SHARDED", "parallel.gather=PREFETCH"};
const Overrides kTwoNodes{"parallel.ranks_per_node=1"};

Overrides operator+(Overrides a, const Overrides& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string as_arguments(const Overrides& overrides) {
  std::string text;
  for (const std::string& assignment : overrides) text += " --set '" + assignment + "'";
  return text;
}

class TrainingPolicies : public Training {
 protected:
  void SetUp() override {
    // 48 samples: 5 steps per epoch with the batches below.
    ASSERT_EQ(run("data sample-photos --count 24 --size 32 --out " + photos().string()).code, 0);
  }

  Outcome train_frozen(const Overrides& more, const std::string& name, const std::string& before,
                       const std::string& arguments = "") const {
    return train(as_arguments(kFrozen + Overrides{"parallel.threads=1"} + more) + arguments, name, before);
  }

  /// The plan that a run with these settings makes.
  static Plan plan_of(const Overrides& more, int ranks, int nodes) {
    const Overrides all = kFrozen + Overrides{"train.global_batch=8", "train.micro_batch=4", "precision.compute=FP32"};
    PlanChoices choices;
    choices.world = {ranks, nodes, 1};
    return make_plan(plan_request(config::load_config(config(), all + more).config, choices));
  }

  std::string saved(const std::string& name, const std::string& file) const {
    const std::string bytes = read_file(dir(name) / "checkpoints" / "step-00000008" / file);
    EXPECT_FALSE(bytes.empty()) << name << " has no " << file;
    return bytes;
  }

  bool began(const std::string& name = "run") const { return std::filesystem::exists(dir(name)); }
};

// ---- Weights are read once per node.

TEST_F(TrainingPolicies, WeightsAreReadOncePerNodeWhateverThePolicy) {
  const Overrides large{"model.epalm.text.hidden=768", "model.epalm.text.word_embed_proj_dim=768",
                        "model.epalm.text.ffn=3072"};
  const std::string folder = (folder_ / "weights").string();
  ASSERT_EQ(run("weights random " + config() + as_arguments(large) + " --dtype f32 --out " + folder).code, 0);
  const Overrides files{"weights.vision=" + folder + "/vision", "weights.text=" + folder + "/text", "train.max_steps=1",
                        "train.global_batch=2", "train.micro_batch=1"};
  // Megabytes needed on rank 0's node and the ratio of what its ranks read, from the log.
  const auto read = [&](const std::string& name, const Overrides& more, int ranks) {
    const Outcome given = train_frozen(large + files + more, name, on_ranks(ranks));
    std::smatch found;
    EXPECT_EQ(given.code, 0) << given.output;
    EXPECT_TRUE(std::regex_search(given.output, found,
                                  std::regex("weights: ([0-9.]+) MB needed on this node, [0-9.]+ MB "
                                             "read \\(([0-9.]+) x\\)")))
        << given.output;
    return std::pair{std::stod(found[1]), std::stod(found[2])};
  };
  const auto [whole, alone_ratio] = read("one", {}, 1);
  EXPECT_GE(whole, 70) << "or headers count for too much";
  for (const double ratio : {alone_ratio, read("resident", {}, 2).second, read("in-place", {kSharded[0]}, 2).second}) {
    EXPECT_GE(ratio, 1.0);
    EXPECT_LE(ratio, 1.05);
  }
  const auto [half, half_ratio] = read("nodes", kSharded + kTwoNodes, 2);
  EXPECT_LE(half, 0.6 * whole) << "each node reads its part";
  EXPECT_GE(half_ratio, 1.0);
  EXPECT_LE(half_ratio, 1.05);
}

// ---- A run goes on with other ranks and policies.

TEST_F(TrainingPolicies, GoesOnWithOtherRanksAndPoliciesBitForBit) {
  const Overrides batches{"train.global_batch=10", "train.micro_batch=2", "schedule.kind=CONSTANT",
                          "schedule.warmup_steps=0"};
  const Overrides resident{"parallel.frozen_policy=RESIDENT"};
  const Overrides mixed =
      resident + Overrides{"parallel.policies+={unit: \"text.*\" policy: SHARDED}", "parallel.ranks_per_node=2"};
  ASSERT_TRUE(ends(train_frozen(batches + resident + Overrides{"train.max_steps=8"}, "whole", on_ranks(2)), 0,
                   {"data: 48 samples", "step 8/8"}));

  struct Link {
    int ranks;
    Overrides policy;
    const char* in_plan;
  };
  const std::vector<Link> chain{{2, resident, "world: 2 ranks on 1 nodes"},
                                {1, {}, "world: 1 ranks on 1 nodes"},
                                {3, kSharded + kTwoNodes, "world: 3 ranks on 3 nodes"},
                                {4, mixed, "world: 4 ranks on 2 nodes"}};
  int step = 0;
  for (const Link& link : chain) {
    const std::string first = std::to_string(step), last = std::to_string(step += 2);
    const Outcome given = train_frozen(batches + link.policy + Overrides{"train.max_steps=" + last}, "parts",
                                       on_ranks(link.ranks), " --resume");
    ASSERT_TRUE(
        ends(given, 0,
             {first == "0" ? "starting from the beginning" : "resumed at step " + first, "step " + last + "/" + last}));
    const std::string plan = read_file(dir("parts") / "plan.txt");
    EXPECT_NE(plan.find(link.in_plan), std::string::npos) << plan;
    EXPECT_EQ(plan.find(" sharded ") != std::string::npos, link.ranks >= 3) << plan;
  }
  EXPECT_EQ(losses("whole").size(), 8u);
  EXPECT_EQ(losses("whole"), losses("parts"));
  for (const char* file : {"adapter.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(saved("whole", file) == saved("parts", file)) << file;
}

// ---- Memory.

int64_t needed(const Plan& plan) {
  const int64_t ranks = plan.world.most_ranks_of_a_node();
  return plan.memory.node(ranks) + ranks * kProcessConstantBytes;
}
std::string in_gib(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / static_cast<double>(1 << 30));
  return text;
}
std::string limited_to(int64_t bytes) { return "parallel.memory_limit_bytes=" + std::to_string(bytes); }

TEST_F(TrainingPolicies, ANodeWithTooLittleMemoryIsRefusedBeforeTheStart) {
  constexpr int64_t kLimit = int64_t{300} << 20;
  const int64_t two = needed(plan_of({}, 2, 1));
  ASSERT_GT(two, kLimit);
  EXPECT_TRUE(ends(
      train_frozen({limited_to(kLimit)}, "run", on_ranks(2)), 2,
      {"/2: memory: 2 ranks of a node need " + in_gib(two) + "; got " + in_gib(kLimit) + ", short by " +
           in_gib(two - kLimit) + ". Frozen weights, once per node: ",
       ". Per rank: slots 0.00 GiB, arena ", ". Ways out: a smaller train.micro_batch ",
       "fewer ranks per node have fewer arenas", "more nodes divide frozen weights (parallel.frozen_policy SHARDED)"}));
  EXPECT_FALSE(began());
  // The way out that the message names.
  EXPECT_TRUE(ends(train_frozen({limited_to(kLimit)}, "run", on_ranks(1)), 0, {"step 4/4"}));
}

TEST_F(TrainingPolicies, ALimitBetweenResidentAndShardedMakesThePlanShard) {
  // Many alike layers, so that half of them is more than two slots.
  const Overrides layers{"model.epalm.text.layers=24"};
  const int64_t resident = needed(plan_of(layers, 2, 2));
  const int64_t sharded = needed(plan_of(layers + kSharded, 2, 2));
  ASSERT_LT(sharded + (int64_t{1} << 19), resident);
  const Overrides enough = layers + kTwoNodes + Overrides{limited_to(resident)};
  const Overrides between = layers + kTwoNodes + Overrides{limited_to((resident + sharded) / 2)};

  ASSERT_TRUE(ends(train_frozen(enough, "resident", on_ranks(2)), 0, {}));
  const std::string fits = read_file(dir("resident") / "plan.txt");
  EXPECT_NE(fits.find(" resident (fits: a node needs "), std::string::npos) << fits;
  EXPECT_EQ(fits.find(" sharded "), std::string::npos) << fits;

  ASSERT_TRUE(ends(train_frozen(between, "between", on_ranks(2)), 0, {}));
  const std::string shards = read_file(dir("between") / "plan.txt");
  EXPECT_NE(shards.find("with all weights resident a node would need " + in_gib(resident) + " of " +
                        in_gib((resident + sharded) / 2) + "; gathered "),
            std::string::npos)
      << shards;
  EXPECT_NE(shards.find(" resident (fits once others are sharded)"), std::string::npos) << shards;

  EXPECT_EQ(losses("resident").size(), 4u);
  EXPECT_EQ(losses("resident"), losses("between"));
  EXPECT_EQ(adapter_hash("resident"), adapter_hash("between"));
}

TEST_F(TrainingPolicies, ANodeOfSeveralWithTooLittleMemoryIsRefusedBeforeTheStart) {
  constexpr int64_t kLimit = int64_t{150} << 20;
  EXPECT_TRUE(ends(train_frozen(kTwoNodes + Overrides{limited_to(kLimit)}, "run", on_ranks(2)), 2,
                   {"/2: memory: 1 ranks of a node need ", "; got " + in_gib(kLimit) + ", short by ",
                    ". Frozen weights, once per node: ", ". Ways out: ",
                    "parallel.frozen_policy SHARDED divides frozen weights among nodes"}));
  EXPECT_FALSE(began());
}

// ---- Ranks that do not agree.

TEST_F(TrainingPolicies, RanksWithOtherSettingsAreRefused) {
  EXPECT_TRUE(ends(train_frozen({}, "run", with_another_rank(3, 2, "--set optimizer.lr=1e-4")), 2,
                   {"rank 2/3: config: all ranks must agree; got optimizer.lr = 0.003 on rank 0, 0.0001 on rank 2"}));
  EXPECT_TRUE(
      ends(train_frozen({}, "run", with_another_rank(2, 1, "--set parallel.frozen_policy=SHARDED")), 2,
           {"config: all ranks must agree; got parallel.frozen_policy = \"AUTO\" on rank 0, \"SHARDED\" on rank 1"}));
  EXPECT_TRUE(ends(train_frozen({}, "run", with_another_rank(2, 1, "--set weights.adapter=somewhere")), 2,
                   {"config: all ranks must agree; got weights.adapter = not set on rank 0, a file on rank 1"}));
  EXPECT_FALSE(began());
}

TEST_F(TrainingPolicies, RanksThatDivideTheMachineDifferentlyAreRefusedAtOnce) {
  EXPECT_TRUE(ends(
      train_frozen({"parallel.ranks_per_node=1"}, "run", with_another_rank(3, 1, "--set parallel.ranks_per_node=2")), 2,
      {"config: all ranks must agree; got parallel.ranks_per_node from 1 to 2, here "}));
  EXPECT_FALSE(began());
}

TEST_F(TrainingPolicies, ThreadsAndPathsMayDiffer) {
  std::filesystem::copy(photos(), folder_ / "copy", std::filesystem::copy_options::recursive);
  EXPECT_TRUE(
      ends(train_frozen({}, "run",
                        with_another_rank(2, 1,
                                          "--set parallel.threads=2 --set data.decode_threads=2 --set data.root=" +
                                              (folder_ / "copy").string())),
           0, {"step 4/4"}));
}

TEST_F(TrainingPolicies, NodesWithOtherWeightsAreRefused) {
  const Plan plan = plan_of({}, 2, 2);
  const Graph& graph = plan.graphs.front();
  const auto file = [&](const std::string& name) { return (folder_ / (name + ".safetensors")).string(); };
  write_weights(file("one"), text_weights(graph), graph, DType::kF32);
  write_weights(file("other"), text_weights(graph), graph, DType::kF32,
                [](const std::string& name, std::span<float> values) {
                  if (name.find("layers.1.") != std::string::npos || name.find("layers.2.") != std::string::npos)
                    values.back() += 1;
                });
  const Overrides one = kTwoNodes + Overrides{"weights.text=" + file("one")};
  EXPECT_TRUE(
      ends(train_frozen(one, "run", with_another_rank(2, 1, "--set weights.text=" + file("other"))), 3,
           {"rank 1/2: weights: all ranks must agree; got hash of text.layers.1 = ", " on rank 0, ", " on rank 1"}));
  EXPECT_TRUE(ends(train_frozen(one, "fine", on_ranks(2)), 0, {"step 4/4"}));
}

TEST_F(TrainingPolicies, AMixtureOfWeightFilesIsRefused) {
  const Plan plan = plan_of({}, 2, 2);
  const Graph& graph = plan.graphs.front();
  const auto file = [&](const std::string& name) { return (folder_ / (name + ".safetensors")).string(); };
  write_weights(file("one"), text_weights(graph), graph, DType::kF32);
  write_weights(file("other"), text_weights(graph), graph, DType::kF32,
                [](const std::string& name, std::span<float> values) {
                  if (name.find("layers.1.fc1.weight") != std::string::npos) values.front() += 1;
                });
  // Ranks of a node share one copy, and ranks that share out a unit have all seen the same parts.
  for (const Overrides& policy : {Overrides{}, kTwoNodes + kSharded})
    EXPECT_TRUE(ends(train_frozen(policy + Overrides{"weights.text=" + file("one")}, "run",
                                  with_another_rank(2, 1, "--set weights.text=" + file("other"))),
                     3,
                     {"rank 1/2: weight files: all ranks must agree; got text ", "layers.1.fc1.weight = F32 ",
                      " on rank 0, F32 ", " on rank 1"}));
}

TEST_F(TrainingPolicies, NodesWhoseWeightsHaveAnotherDtypeAreRefused) {
  const Plan plan = plan_of({}, 2, 2);
  const Graph& graph = plan.graphs.front();
  const auto file = [&](DType dtype) { return (folder_ / concat(to_string(dtype), ".safetensors")).string(); };
  for (const DType dtype : {DType::kF32, DType::kF16}) write_weights(file(dtype), text_weights(graph), graph, dtype);
  EXPECT_TRUE(ends(
      train_frozen(kTwoNodes + Overrides{"weights.text=" + file(DType::kF32)}, "run",
                   with_another_rank(2, 1, "--set weights.text=" + file(DType::kF16))),
      2, {"rank 1/2: plan: all ranks must agree; got storage of text.", "f32", " on rank 0, ", "f16", " on rank 1"}));
  EXPECT_FALSE(began());
}

TEST_F(TrainingPolicies, RanksWithOtherSamplesAreRefused) {
  Json all = captions();
  all["annotations"][0]["caption"] = "another caption";
  const auto other = folder_ / "other.json";
  write_file(other, json_text(all));
  EXPECT_TRUE(ends(train_frozen({}, "run", with_another_rank(3, 1, "--set data.captions=" + other.string())), 3,
                   {"rank 1/3: data: all ranks must agree; got samples and their tokens (SHA-256) = ", " on rank 0, ",
                    " on rank 1"}));
}

// ---- More ranks than there is to share out.

TEST_F(TrainingPolicies, ARankThatFailsWhileUnitsAreGatheredTakesTheOthersDown) {
  // One photograph is damaged: the rank that decodes it fails, while its communication thread may wait for the others.
  write_file(photos() / "images" / first_image(), "no photograph");
  const auto begin = std::chrono::steady_clock::now();
  const Outcome given = train_frozen(kSharded + kTwoNodes + Overrides{"train.max_steps=100000"}, "run", on_ranks(3));
  EXPECT_TRUE(ends(given, 3, {first_image(), "/3: "}));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30)) << "and not when time is up";
}

TEST_F(TrainingPolicies, MoreRanksThanUnitsBlocksAndSamplesIsFine) {
  Json all = captions();
  for (const char* list : {"images", "annotations"}) all[list].erase(all[list].begin() + 1, all[list].end());
  write_file(photos() / "captions.json", json_text(all));
  // Three blocks of 4,096 trainable elements at most, and six units with frozen weights.
  const Overrides small{"model.epalm.vision.depth=1", "model.epalm.text.layers=1", "model.epalm.features=1",
                        "model.epalm.end_layer=1"};
  constexpr int kRanks = 8;
  const Plan plan = plan_of(small + kSharded, kRanks, 3);
  EXPECT_LT(std::ranges::count_if(plan.frozen_units, [](const FrozenUnit& unit) { return unit.bytes > 0; }), kRanks);
  EXPECT_LT(plan.trainable_space, kRanks * kTrainableBlock);

  ASSERT_TRUE(ends(train_frozen(small, "one", on_ranks(1)), 0, {"data: 1 samples, 1 images"}));
  for (const char* gather : {"PREFETCH", "INLINE"}) {
    const Overrides policy{"parallel.frozen_policy=SHARDED", "parallel.ranks_per_node=3",
                           std::string("parallel.gather=") + gather};
    EXPECT_TRUE(ends(train_frozen(small + policy, gather, on_ranks(kRanks)), 0, {"8 ranks x ", "step 4/4"}));
    EXPECT_EQ(losses("one").size(), 4u);
    EXPECT_EQ(losses("one"), losses(gather));
    EXPECT_EQ(adapter_hash("one"), adapter_hash(gather));
  }
}

}  // namespace
}  // namespace permafrost
