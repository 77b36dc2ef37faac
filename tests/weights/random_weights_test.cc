#include "core/weights/random_weights.h"

#include "core/base/json.h"
#include "core/base/sha256.h"
#include "core/weights/inspect.h"
#include "core/weights/source.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

const std::vector<RandomParameter> kParameters{{"embed.weight", {300, 2000}, Initializer::normal(0.02f)},
                                               {"fc.weight", {30, 40}, Initializer::uniform(0.1f)},
                                               {"fc.bias", {30}, Initializer::zeros()},
                                               {"norm.weight", {40}, Initializer::ones()}};

TEST(WriteRandom, OneFileHoldsWhatFillGives) {
  const ScratchFolder folder;
  const auto written = write_random(kParameters, folder / "out/deep", {DType::kF16, 7});
  EXPECT_EQ(written.files, (std::vector<std::string>{folder / "out/deep/model.safetensors"}));
  EXPECT_EQ(written.bytes, static_cast<int64_t>(std::filesystem::file_size(written.files[0])));
  const WeightSource source = WeightSource::open(folder / "out/deep");
  EXPECT_EQ(source.files()[0]->metadata().at("format"), "pt");
  EXPECT_EQ(source.files()[0]->metadata().at("permafrost.seed"), "7");
  for (const RandomParameter& parameter : kParameters) {
    const SourceTensor& tensor = source.at(parameter.name);
    EXPECT_EQ(tensor.stored.shape, parameter.shape);
    EXPECT_EQ(tensor.stored.dtype, DType::kF16);
    std::vector<std::byte> expected(static_cast<size_t>(tensor.stored.bytes));
    fill(parameter.initializer, 7, parameter.name, DType::kF16, 0, expected);
    EXPECT_EQ(source.files()[0]->read_all(parameter.name), expected) << parameter.name;
  }
}

TEST(WriteRandom, ShardsHoldTheSameTensors) {
  const ScratchFolder folder;
  write_random(kParameters, folder / "one", {DType::kBF16, 7});
  const auto written = write_random(kParameters, folder / "many", {DType::kBF16, 7, 2600});
  ASSERT_EQ(written.files.size(), 3u);  // the first tensor is too large and stands alone; the rest fits in one
  EXPECT_EQ(written.files[0], folder / "many/model-00001-of-00002.safetensors");
  EXPECT_EQ(written.files[2], folder / "many/model.safetensors.index.json");
  int64_t bytes = 0;
  for (const std::string& file : written.files) bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  EXPECT_EQ(written.bytes, bytes);
  const auto index = parse_json(read_text(written.files[2]));
  EXPECT_EQ(index["metadata"]["total_size"], 2 * (600000 + 1200 + 30 + 40));
  const WeightSource one = WeightSource::open(folder / "one"), many = WeightSource::open(folder / "many");
  for (const RandomParameter& parameter : kParameters)
    EXPECT_EQ(one.files()[0]->read_all(parameter.name),
              many.files()[many.at(parameter.name).file]->read_all(parameter.name));
}

TEST(WriteRandom, ThreadsChangeNoBit) {
  const ScratchFolder folder;
  const std::vector<RandomParameter> large{{"embed.weight", {3000, 3000}, Initializer::normal(0.02f)}, kParameters[1]};
  write_random(large, folder / "one", {.dtype = DType::kBF16, .seed = 7});
  write_random(large, folder / "three", {.dtype = DType::kBF16, .seed = 7, .threads = 3});
  EXPECT_TRUE(read_text(folder / "one/model.safetensors") == read_text(folder / "three/model.safetensors"));
}

TEST(WriteRandom, TheSameSeedGivesTheSameFile) {
  const ScratchFolder folder;
  write_random(kParameters, folder / "a", {DType::kF32, 7});
  write_random(kParameters, folder / "b", {DType::kF32, 7});
  write_random(kParameters, folder / "c", {DType::kF32, 8});
  const std::string a = read_text(folder / "a/model.safetensors");
  EXPECT_EQ(a, read_text(folder / "b/model.safetensors"));
  EXPECT_NE(a, read_text(folder / "c/model.safetensors"));
}

TEST(WriteRandom, LooksAtFreeSpaceFirst) {
  const ScratchFolder folder;
  const std::vector<RandomParameter> huge{{"w", {int64_t{1} << 29, int64_t{1} << 29}, Initializer::zeros()}};
  EXPECT_TRUE(throws_error(
      [&] {
        write_random(huge, folder.path(), {DType::kF16, 1});
      },
      ErrorKind::kStorage, {"not enough room", "expected 576460752303", "bytes free; got "}));
  EXPECT_EQ(folder.files(), 0u);
}

TEST(WriteRandom, LeavesOtherWeightsAlone) {
  const ScratchFolder folder;
  write_text(folder / "adapter.safetensors", "x");
  EXPECT_TRUE(throws_error([&] { write_random(kParameters, folder.path(), {}); }, ErrorKind::kStorage,
                           {"folder without weights; got adapter.safetensors in " + folder.path()}));
  EXPECT_EQ(folder.files(), 1u);
  EXPECT_TRUE(throws_error([&] { write_random(kParameters, folder / "adapter.safetensors/x", {}); },
                           ErrorKind::kStorage, {"cannot make folder"}));
}

TEST(WriteRandom, RefusesNonsense) {
  const ScratchFolder folder;
  EXPECT_TRUE(throws_error(
      [&] {
        write_random({kParameters[0], kParameters[0]}, folder.path(), {});
      },
      ErrorKind::kInvalidArgument, {"'embed.weight' twice"}));
  EXPECT_TRUE(throws_error([&] { write_random(kParameters, folder.path(), {DType::kI64}); },
                           ErrorKind::kInvalidArgument, {"got i64"}));
  EXPECT_TRUE(throws_error(
      [&] {
        write_random(kParameters, folder.path(), {DType::kF16, 0, 0});
      },
      ErrorKind::kInvalidArgument, {"max_shard_bytes"}));
  EXPECT_EQ(folder.files(), 0u);
}

TEST(Inspect, TellsEverything) {
  const ScratchFolder folder;
  write_tensors(
      folder / "w.safetensors",
      {{"a.weight", make_tensor(DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6})}, {"ids", make_tensor(DType::kI64, {}, {1})}},
      {{"format", "pt"}});
  const WeightSource source = WeightSource::open(folder / "w.safetensors");
  const std::string text = inspect_text(source);
  for (const char* line : {"metadata format = pt\n", "name      dtype    shape   bytes\n",
                           "a.weight  F32      (2, 3)  24\n", "ids       I64      ()      8\n",
                           "F32: 1 tensors, 6 values, 24 bytes\n", "total: 2 tensors, 7 values, 32 bytes\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "is not in\n" << text;
  const auto json = parse_json(inspect_json(source));
  EXPECT_EQ(json["path"], folder / "w.safetensors");
  EXPECT_EQ(json["files"][0]["metadata"]["format"], "pt");
  EXPECT_EQ(json["files"][0]["bytes"], std::filesystem::file_size(folder / "w.safetensors"));
  EXPECT_EQ(json["tensors"][0]["name"], "a.weight");
  EXPECT_EQ(json["tensors"][0]["shape"], (std::vector<int>{2, 3}));
  EXPECT_EQ(json["tensors"][1]["shape"], std::vector<int>{});
  EXPECT_EQ(json["totals"]["bytes"], 32);
  EXPECT_EQ(json["totals"]["by_dtype"]["I64"]["elements"], 1);
}

}  // namespace
}  // namespace permafrost::testing
