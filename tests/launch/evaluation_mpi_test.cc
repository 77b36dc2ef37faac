// The same result files on any number of ranks, with frozen weights on every node and divided among nodes.
#include "tests/launch/evaluation_fixture.h"

namespace permafrost {
namespace {

class EvalOnRanks : public EvaluationTest {
 protected:
  std::string out(const std::string& name) const { return (folder_ / name).string(); }
  void expect_same_files(const std::string& name, const std::string& other) const {
    for (const char* file : {"results.json", "results_exchanged.json", "scores.json"}) {
      const std::string bytes = read_file(folder_ / name / file);
      EXPECT_FALSE(bytes.empty()) << name << ' ' << file;
      // scores.json names its configuration, which says where weights are.
      if (std::string(file) == "scores.json") {
        const Json a = parse_json(bytes), b = parse_json(read_file(folder_ / other / file));
        EXPECT_EQ(a["evaluation"], b["evaluation"]) << name;
        EXPECT_EQ(a["exchanged_images"], b["exchanged_images"]) << name;
      } else {
        EXPECT_EQ(bytes, read_file(folder_ / other / file)) << name << ' ' << file;
      }
    }
  }
};

TEST_F(EvalOnRanks, GiveTheSameBytes) {
  const std::string settings = " --set parallel.threads=1 --set evaluation.exchanged_images=true --out ";
  ASSERT_TRUE(ends(eval(settings + out("one")), 0, {}));
  for (const int ranks : {2, 3}) {
    const std::string name = "resident" + std::to_string(ranks);
    ASSERT_TRUE(ends(eval(settings + out(name), on_ranks(ranks)), 0, {"12 images"}));
    expect_same_files(name, "one");
  }
}

TEST_F(EvalOnRanks, GiveTheSameGroupsAndSheet) {
  const std::vector<std::string> captions = half_right_captions();
  write_shards("shards", captions, held_out_annotations());
  for (const int ranks : {1, 2, 3}) {
    const std::string name = "groups" + std::to_string(ranks), png = name + "/sheet.png";
    std::filesystem::create_directories(out(name));
    const Outcome outcome = eval(on_shards("shards") +
                                     "--set parallel.threads=1 --set evaluation.exchanged_images=true --set "
                                     "evaluation.group_by=held_out --sheet " +
                                     out(png) + " --out " + out(name),
                                 ranks > 1 ? on_ranks(ranks) : "");
    ASSERT_TRUE(ends(outcome, 0, {"exact match: 50.0 % (held_out: 50.0 %, exchanged images: "}));
    if (ranks == 1) continue;
    expect_same_files(name, "groups1");
    EXPECT_EQ(read_file(folder_ / png), read_file(out("groups1/sheet.png")));
  }
}

/// Each rank a node of its own: every program gathers what it reads, and ranks without texts take part.
TEST_F(EvalOnRanks, GiveTheSameBytesWithFrozenWeightsDividedAmongNodes) {
  // Only the connectors train, and were; 12 images in batches of 2 leave one of three ranks with nothing twice.
  const std::string frozen =
      " --set freeze[0].pattern=connector* --set 'freeze+={pattern: \"*\" trainable: false}' --set parallel.threads=1"
      " --set evaluation.exchanged_images=true --set evaluation.samples=9";
  const auto eval_frozen = [&](const std::string& more, const std::string& before) {
    return run("eval " + model() + EvaluationTest::settings() + frozen + more, before);
  };
  struct Case {
    int ranks;
    std::string cache, gather;
  };
  for (const Case& c : {Case{2, "ON", "INLINE"}, Case{3, "ON", "PREFETCH"}, Case{3, "OFF", "PREFETCH"}}) {
    const std::string name = concat("sharded", c.cache, c.ranks), one = "one" + c.cache;
    const std::string cache = " --set evaluation.decoding.cache=" + c.cache;
    if (!std::filesystem::exists(out(one))) {
      ASSERT_TRUE(ends(eval_frozen(cache + " --out " + out(one), ""), 0, {}));
    }
    ASSERT_TRUE(ends(eval_frozen(cache +
                                     " --set parallel.frozen_policy=SHARDED --set parallel.ranks_per_node=1"
                                     " --set parallel.gather=" +
                                     c.gather + " --out " + out(name),
                                 on_ranks(c.ranks)),
                     0, {"9 images", "frozen weights gathered "}));
    expect_same_files(name, one);
  }
}

/// The other ranks must not wait for one that has failed.
TEST_F(EvalOnRanks, EndTogetherWhenAnImageCannotBeRead) {
  write_file(image(5), "no image any more");
  EXPECT_TRUE(ends(eval("--set parallel.threads=1", on_ranks(3)), 3, {"000005.png"}));
}

TEST_F(EvalOnRanks, EndTogetherWhenTheSheetCannotBeWritten) {
  std::filesystem::create_directories(folder_ / "taken.png" / "in");
  for (const char* file : {"taken.png", "none/sheet.png"})
    EXPECT_TRUE(ends(eval("--set parallel.threads=1 --sheet " + out(file), on_ranks(2)), 4, {file}));
}

TEST_F(EvalOnRanks, MustReadTheSame) {
  Json all = captions();
  all["annotations"][0]["caption"] = "another caption";
  write_file(folder_ / "other.json", json_text(all));
  EXPECT_TRUE(
      ends(eval("", with_another_rank(2, 1, "--set evaluation.data.captions=" + (folder_ / "other.json").string())), 3,
           {"rank 1/2: evaluation.data: all ranks must agree; got samples and their tokens (SHA-256) = "}));
  // Trained otherwise, all shapes the same.
  ASSERT_TRUE(ends(train("--set train.seed=7", "other"), 0, {}));
  const std::string adapter = (dir("other") / "checkpoints" / "step-00000004" / "adapter.safetensors").string();
  EXPECT_TRUE(
      ends(run("eval " + model() + settings() + " --set weights.adapter=" + checkpoint() + "/adapter.safetensors",
               with_another_rank(2, 1, "--set weights.adapter=" + adapter)),
           3, {"rank 1/2: weight files: all ranks must agree; got adapter "}));
}

TEST_F(EvalOnRanks, GenerateRunsOnOne) {
  EXPECT_TRUE(ends(run("generate " + model() + " --image " + image(), on_ranks(2)), 2,
                   {"generate: expected one rank, started without a launcher (several evaluate a dataset: permafrost "
                    "eval); got 2"}));
}

}  // namespace
}  // namespace permafrost
