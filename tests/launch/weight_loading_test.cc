// Weights shared out over ranks: the same bytes, the same hash, the same words as on one rank.
#include <cstring>
#include <limits>
#include <mutex>

#include "core/weights/load.h"
#include "launch/training/thread_io.h"
#include "launch/training/trainable_watch.h"
#include "parallel/group/inproc_group.h"
#include "tests/launch/weights_fixture.h"

namespace permafrost {
namespace {

using testing::throws_error;
using Strings = std::vector<std::string>;

const std::string kEmbedding = "model.decoder.embed_tokens.weight";

/// What all ranks together loaded.
struct Loaded {
  std::vector<std::byte> frozen;
  std::vector<float> masters;
  int64_t needed = 0, read = 0;
  Strings lines;  // without the node's, which has times
  std::string node_line;
  std::string hash;
};

class WeightLoading : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<bool> trainable;
    for (const ParamPlan& param : plan_.params) trainable.push_back(param.trainable);
    write_weights(vision(), vision_weights(graph()), graph(), DType::kF32);
    write_text({});
    write_weights(adapter(), adapter_weights(graph(), trainable), graph(), DType::kF16);
  }
  void write_text(const std::function<void(const std::string&, std::span<float>)>& edit) const {
    write_weights(text(), text_weights(graph()), graph(), DType::kF16, edit, {kEmbedding, "lm_head.weight"});
  }
  const Graph& graph() const { return plan_.graphs.front(); }
  std::filesystem::path vision() const { return folder_ / "vision.safetensors"; }
  std::filesystem::path text() const { return folder_ / "text.safetensors"; }
  std::filesystem::path adapter() const { return folder_ / "adapter.safetensors"; }
  Strings files() const { return {"weights.vision=" + vision().string(), "weights.text=" + text().string()}; }
  Strings files_and_adapter() const {
    Strings all = files();
    all.push_back("weights.adapter=" + adapter().string());
    return all;
  }

  /// On ranks that are threads and share the frozen memory, each loading its part.
  static Loaded load(const Strings& overrides, int ranks) {
    const config::Resolved config = quickstart(overrides);
    const Plan plan = plan_for(config.config, ranks);
    const Buffer memory("frozen", plan.memory.node_frozen);
    Loaded all;
    all.masters.resize(static_cast<size_t>(plan.trainable_space));
    std::mutex mutex;
    run_inproc(ranks, [&](Group& group) {
      ShardedAdamw optimizer(plan, group.rank(), {});
      const auto ranges = part_of_units(plan, group.rank(), ranks, memory.data());
      ThreadPool pool(ranks == 1 ? 3 : 1);
      const LoadedWeights mine = load_model_weights(config.config, plan, ranges, optimizer, group, group, pool);
      const FrozenHash hash = hash_frozen(plan, ranges, group, group, pool);
      std::memcpy(all.masters.data() + optimizer.slice_begin(), optimizer.master().raw(),
                  static_cast<size_t>(optimizer.master().bytes()));
      const std::lock_guard lock(mutex);
      all.needed += mine.needed_bytes;
      all.read += mine.read_bytes.value_or(0);
      Strings lines = mine.lines;
      if (!lines.empty() && lines.back().starts_with("weights:")) {
        all.node_line = lines.back();
        lines.pop_back();
      }
      if (!all.lines.empty()) {
        EXPECT_EQ(lines, all.lines) << "rank " << group.rank();
        EXPECT_EQ(hash.sha256, all.hash) << "rank " << group.rank();
      }
      all.lines = lines;
      all.hash = hash.sha256;
    });
    all.frozen.assign(memory.data(), memory.data() + memory.bytes());
    return all;
  }

  static void expect_same_on_any_number_of_ranks(const Strings& overrides) {
    const Loaded one = load(overrides, 1);
    for (int ranks = 2; ranks <= 5; ++ranks) {
      const Loaded several = load(overrides, ranks);
      EXPECT_TRUE(several.frozen == one.frozen) << ranks;
      EXPECT_TRUE(several.masters == one.masters) << ranks;
      EXPECT_EQ(several.lines, one.lines) << ranks;
      EXPECT_EQ(several.needed, one.needed) << ranks;
      EXPECT_EQ(several.hash, one.hash) << ranks;
    }
  }

  ScratchFolder folder_;
  Plan plan_ = plan_for(quickstart({}).config, 1);
};

TEST_F(WeightLoading, FilesGiveTheSameOnAnyNumberOfRanks) {
  expect_same_on_any_number_of_ranks(files());
  Strings rounded = files_and_adapter();
  rounded.push_back("precision.frozen_storage=BF16");
  expect_same_on_any_number_of_ranks(rounded);
}

TEST_F(WeightLoading, RandomValuesAreTheSameOnAnyNumberOfRanks) {
  expect_same_on_any_number_of_ranks({});
  const Loaded random = load({}, 3);
  ASSERT_EQ(random.lines.size(), 2u);
  EXPECT_EQ(random.lines[0], "vision: RANDOM weights from seed 42 (weights.vision is not set): outputs mean nothing");
  EXPECT_TRUE(random.node_line.empty()) << "nothing was read: " << random.node_line;
}

TEST_F(WeightLoading, GivesEveryParameterItsTensor) {
  Strings overrides = files_and_adapter();
  overrides.push_back("precision.frozen_storage=BF16");
  const Loaded loaded = load(overrides, 3);
  const Plan plan = plan_for(quickstart(overrides).config, 3);
  const WeightSource of_vision = WeightSource::open(vision().string()), of_text = WeightSource::open(text().string()),
                     of_adapter = WeightSource::open(adapter().string());
  size_t checked = 0;
  for (const ParamPlan& param : plan.params) {
    const bool is_vision = param.name.starts_with("vision.");
    const WeightSource& source = param.trainable ? of_adapter : is_vision ? of_vision : of_text;
    const SourceTensor* tensor = source.find(param.trainable ? param.name : param.name.substr(is_vision ? 7 : 5));
    ASSERT_NE(tensor, nullptr) << param.name;
    const DType dtype = param.trainable ? DType::kF32 : param.placement.stored.dtype;
    const testing::OwnedTensor want = testing::filled_tensor(dtype, param.shape, 0);
    load_tensor(source, *tensor, want);
    const void* got = param.trainable ? static_cast<const void*>(loaded.masters.data() + param.trainable_offset)
                                      : loaded.frozen.data() + param.placement.offset;
    EXPECT_EQ(std::memcmp(got, want.view().raw(), static_cast<size_t>(want.view().bytes())), 0) << param.name;
    ++checked;
  }
  EXPECT_GT(checked, 50u);
}

TEST_F(WeightLoading, SaysWhatChangedMostOnAnyRank) {
  Strings overrides = files();
  overrides.push_back("precision.frozen_storage=BF16");
  const Plan plan = plan_for(quickstart(overrides).config, 1);
  // Half of bf16's last bit, beside values that need no rounding: the largest change there can be is in that tensor.
  const std::string name = "vision.blocks.1.mlp.fc2.weight";
  write_weights(vision(), vision_weights(graph()), graph(), DType::kF32,
                [&](const std::string& tensor, std::span<float> values) {
                  for (float& value : values)
                    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) & 0xFFFF0000u);
                  if ("vision." + tensor == name) values[values.size() / 2] = 1.00390625f;
                });
  for (int ranks : {1, 4}) {
    const Loaded loaded = load(overrides, ranks);
    ASSERT_EQ(loaded.lines.size(), 2u);
    EXPECT_TRUE(loaded.lines[0].ends_with("; largest relative change by rounding 0.00389105 in " + name))
        << loaded.lines[0];
    EXPECT_NE(loaded.lines[1].find("stored twice: lm_head.weight"), std::string::npos) << loaded.lines[1];
  }
}

TEST_F(WeightLoading, ReadsEveryByteOnce) {
  const int64_t backbones = data_bytes(vision()) + data_bytes(text());
  int64_t trainable_text = 0;  // stored as f16
  for (const ParamPlan& param : plan_.params)
    if (param.trainable && param.name.starts_with("text.")) trainable_text += 2 * param.shape.elements();
  ASSERT_GT(trainable_text, 0);
  for (int ranks = 1; ranks <= 4; ++ranks) {
    const Loaded from_files = load(files(), ranks);
    EXPECT_EQ(from_files.needed, backbones) << ranks;
    // What the adapter has is not read from the text file.
    EXPECT_EQ(load(files_and_adapter(), ranks).needed, backbones - trainable_text + data_bytes(adapter())) << ranks;
    if (!bytes_read_by_this_thread()) continue;
    int64_t headers = 4096;  // and /proc
    for (const auto& path : {vision(), text()})
      headers += static_cast<int64_t>(std::filesystem::file_size(path)) - data_bytes(path);
    EXPECT_GE(from_files.read, backbones) << ranks;
    EXPECT_LE(from_files.read, backbones + ranks * headers) << ranks;
    EXPECT_NE(from_files.node_line.find(" needed on this node, "), std::string::npos) << from_files.node_line;
    EXPECT_NE(from_files.node_line.find(" read ("), std::string::npos) << from_files.node_line;
  }
}

TEST_F(WeightLoading, NamesWhatOneRankFinds) {
  // The end of the last frozen block of the text model: only one of the ranks reads it.
  write_text([&](const std::string& name, std::span<float> values) {
    if (name == "model.decoder.layers.1.fc2.weight") values.back() = std::numeric_limits<float>::quiet_NaN();
  });
  for (int ranks : {1, 3})
    EXPECT_TRUE(throws_error(
        [&] { load(files(), ranks); }, ErrorKind::kWeights,
        {text().string(), "must be finite; got 1 NaN or infinite of ", "[param=model.decoder.layers.1.fc2.weight]"}));
  write_text([&](const std::string& name, std::span<float> values) {
    if (name == "lm_head.weight") values[values.size() - 1] += 1;
  });
  for (int ranks : {1, 3})
    EXPECT_TRUE(
        throws_error([&] { load(files(), ranks); }, ErrorKind::kWeights,
                     {"untied: 'lm_head.weight' must equal '" + kEmbedding + "'; they differ first in row 263"}));
}

TEST_F(WeightLoading, RefusesRangesThatCutAnElement) {
  const config::Resolved config = quickstart(files());
  const Plan plan = plan_for(config.config, 1);
  const Buffer memory("frozen", plan.memory.node_frozen);
  ShardedAdamw optimizer(plan, 0, {});
  const FrozenRange cut{0, 4097, memory.data()};
  const auto group = make_solo_group();
  ThreadPool pool(1);
  EXPECT_TRUE(throws_error(
      [&] {
        load_model_weights(config.config, plan, {&cut, 1}, optimizer, *group, *group, pool);
      },
      ErrorKind::kInvalidArgument, {"frozen range [0, 4097) must hold whole elements of 4 bytes"}));
}

TEST(FrozenUnits, StandTogetherInEveryPreset) {
  for (const auto& entry : std::filesystem::directory_iterator(std::string(PERMAFROST_SOURCE) + "/configs")) {
    if (entry.path().extension() != ".textproto") continue;
    const config::Resolved config = config::load_config(entry.path().string(), {});
    PlanChoices choices;
    choices.read_files = false;
    const Plan plan = make_plan(plan_request(config.config, choices));
    Strings names;
    for (const UnitRange& unit : units_of(plan)) names.push_back(unit.name);
    std::ranges::sort(names);
    EXPECT_EQ(std::ranges::adjacent_find(names), names.end()) << entry.path();
  }
}

/// The frozen memory of a plan, with seeded bytes where parameters are.
class HashFrozen : public ::testing::Test {
 protected:
  HashFrozen() {
    for (const ParamPlan& param : plan_.params)
      if (!param.trainable)
        fill(Initializer::normal(1), 1, param.name, param.placement.stored.dtype, 0,
             {memory_.data() + param.placement.offset, static_cast<size_t>(param.placement.stored.bytes())});
  }
  FrozenHash hash(int ranks = 1, int threads = 1) {
    FrozenHash result;
    run_inproc(ranks, [&](Group& group) {
      ThreadPool pool(threads);
      const FrozenHash here =
          hash_frozen(plan_, part_of_units(plan_, group.rank(), ranks, memory_.data()), group, group, pool);
      if (group.rank() == 0) result = here;
    });
    return result;
  }
  FrozenHash hash_of(const std::vector<FrozenRange>& ranges) {
    ThreadPool pool(1);
    const auto alone = make_solo_group();
    return hash_frozen(plan_, ranges, *alone, *alone, pool);
  }

  Plan plan_ = plan_for(quickstart({"model.epalm.text.vocab=5000"}).config, 1);  // one unit has many blocks
  Buffer memory_{"frozen", plan_.memory.node_frozen};
};

TEST_F(HashFrozen, DoesNotDependOnRanksThreadsOrOrder) {
  const FrozenHash one = hash();
  EXPECT_EQ(one.units.size(), units_of(plan_).size());
  EXPECT_GE(one.units.size(), 5u);
  EXPECT_EQ(one.sha256.size(), 64u);
  EXPECT_EQ(hash_of({{0, plan_.memory.node_frozen, memory_.data()}}).sha256, one.sha256);
  for (int ranks = 1; ranks <= 5; ++ranks)
    for (int threads : {1, 2}) {
      const FrozenHash several = hash(ranks, threads);
      EXPECT_EQ(several.sha256, one.sha256) << ranks << ' ' << threads;
      EXPECT_TRUE(changed_units(one, several).empty());
    }
  std::vector<FrozenRange> ranges = part_of_units(plan_, 0, 1, memory_.data());
  std::ranges::reverse(ranges);
  EXPECT_EQ(hash_of(ranges).sha256, one.sha256);
}

TEST_F(HashFrozen, NamesTheUnitOfAFlippedBit) {
  const FrozenHash before = hash();
  for (const UnitRange& unit : units_of(plan_))
    for (const int64_t at : {unit.begin, (unit.begin + unit.end) / 2, unit.end - 1}) {
      memory_.data()[at] ^= std::byte{4};
      const FrozenHash after = hash(2);
      EXPECT_NE(after.sha256, before.sha256) << unit.name;
      EXPECT_EQ(changed_units(before, after), Strings{unit.name});
      memory_.data()[at] ^= std::byte{4};
    }
  EXPECT_EQ(hash().sha256, before.sha256);
}

TEST_F(HashFrozen, RefusesWrongCutsAndBytesMissingOrTwice) {
  const std::vector<FrozenRange> all = part_of_units(plan_, 0, 1, memory_.data());
  std::vector<FrozenRange> less = all, more = all, cut = all;
  less.pop_back();
  EXPECT_TRUE(throws_error([&] { hash_of(less); }, ErrorKind::kInvalidArgument, {"every byte", "once"}));
  more.push_back(all.back());
  EXPECT_TRUE(throws_error([&] { hash_of(more); }, ErrorKind::kInvalidArgument, {"every byte", "once"}));
  const auto large = std::ranges::find_if(cut, [](const FrozenRange& range) { return range.end - range.begin > 8192; });
  ASSERT_NE(large, cut.end());
  large->end = large->begin + 4100;
  EXPECT_TRUE(throws_error([&] { hash_of(cut); }, ErrorKind::kInvalidArgument, {"cut at multiples of 4096"}));
  EXPECT_TRUE(throws_error([&] { changed_units(hash(), {}); }, ErrorKind::kInvalidArgument, {"one plan", "0 units"}));
}

TEST(TrainableWatch, NamesWhatNoRankChanged) {
  for (int ranks = 1; ranks <= 4; ++ranks) {
    const Plan plan = plan_for(quickstart({}).config, ranks);
    std::vector<const ParamPlan*> trainables;
    for (const ParamPlan& param : plan.params)
      if (param.trainable) trainables.push_back(&param);
    ASSERT_GT(trainables.size(), 10u);
    // The last element of all but two.
    const std::vector<size_t> left{3, trainables.size() - 1};
    run_inproc(ranks, [&](Group& group) {
      ThreadPool pool(2);
      ShardedAdamw optimizer(plan, group.rank(), {});
      const TrainableWatch watch(plan, optimizer, pool);
      EXPECT_EQ(watch.parameters(), static_cast<int64_t>(trainables.size()));
      EXPECT_EQ(watch.unchanged(optimizer, group, pool).size(), trainables.size());
      for (size_t i = 0; i < trainables.size(); ++i) {
        const int64_t element = trainables[i]->trainable_offset + trainables[i]->shape.elements() - 1;
        if (element < optimizer.slice_begin() || element >= optimizer.slice_end()) continue;
        if (std::ranges::find(left, i) != left.end()) continue;
        optimizer.master().data<float>()[element - optimizer.slice_begin()] = 1e-30f;
      }
      EXPECT_EQ(watch.unchanged(optimizer, group, pool),
                (Strings{trainables[left[0]]->name, trainables[left[1]]->name}))
          << ranks;
    });
  }
}

TEST(StepChanges, SaysWhatChangedInALine) {
  StepChanges changes{1, 123, {}, 4, {}, "abc"};
  EXPECT_EQ(to_line(changes), "step 1: every trainable changed (123 tensors), no frozen did (hash abc)");
  changes.unchanged_trainables = {"a", "b", "c", "d", "e", "f", "g"};
  const std::string some = to_line(changes);
  EXPECT_TRUE(some.starts_with("step 1: 7 of 123 trainables did not change: a, b, c, d, e and 2 more (gradient zero"));
  EXPECT_TRUE(some.ends_with("), no frozen did (hash abc)")) << some;
  changes = {3, 2, {}, 4, {"text.layers.0"}, "abc"};
  EXPECT_EQ(to_line(changes),
            "step 3: every trainable changed (2 tensors), but FROZEN weights changed in text.layers.0 (hash abc)");
  changes = {1, 2, {}, 0, {}, "abc"};
  EXPECT_EQ(to_line(changes), "step 1: every trainable changed (2 tensors), nothing is frozen");
}

TEST(ThreadIo, CountsWhatThisThreadReads) {
  EXPECT_EQ(rchar_of_io("rchar: 123\nwchar: 5\n"), 123);
  EXPECT_EQ(rchar_of_io("wchar: 5\nrchar: 77\n"), 77);
  EXPECT_EQ(rchar_of_io(""), std::nullopt);
  const ScratchFolder folder;
  std::ofstream(folder / "file") << std::string(100'000, 'x');
  const auto before = bytes_read_by_this_thread();
  if (!before) GTEST_SKIP() << "this kernel does not count bytes read";
  std::string text;
  std::ifstream(folder / "file") >> text;
  const int64_t read = *bytes_read_by_this_thread() - *before;
  EXPECT_GE(read, 100'000);
  EXPECT_LE(read, 100'000 + 4096);
}

}  // namespace
}  // namespace permafrost
