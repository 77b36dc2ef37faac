#include "core/weights/source.h"

#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

NamedTensor numbers(const std::string& name, double first) {
  return {name, make_tensor(DType::kF32, {2}, {first, first + 1})};
}

/// Two shards, three tensors, and the index that says so.
void write_sharded(const ScratchFolder& folder) {
  write_tensors(folder / "model-00001-of-00002.safetensors", {numbers("a", 1), numbers("b", 3)});
  write_tensors(folder / "model-00002-of-00002.safetensors", {numbers("c", 5)});
  write_text(folder / "model.safetensors.index.json", R"({"metadata": {"total_size": 24}, "weight_map": {
    "a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}})");
}

float first_value(const WeightSource& source, const std::string& name) {
  float value = 0;
  source.read(source.at(name), 0, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

::testing::AssertionResult refused(const std::string& path, std::vector<std::string> parts) {
  return throws_error([&] { WeightSource::open(path); }, ErrorKind::kWeights, parts);
}

TEST(WeightSource, OneFile) {
  const ScratchFolder folder;
  write_tensors(folder / "any.safetensors", {numbers("a", 1), numbers("b", 3)});
  const WeightSource source = WeightSource::open(folder / "any.safetensors");
  EXPECT_EQ(source.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(first_value(source, "b"), 3);
  EXPECT_EQ(source.find("c"), nullptr);
  EXPECT_TRUE(throws_error([&] { source.at("c"); }, ErrorKind::kWeights, {"any.safetensors", "'c'", "among 2"}));
}

TEST(WeightSource, FolderWithOneFile) {
  const ScratchFolder folder;
  write_tensors(folder / "model.safetensors", {numbers("a", 1)});
  EXPECT_EQ(first_value(WeightSource::open(folder.path()), "a"), 1);
}

TEST(WeightSource, ShardsByFolderAndByIndex) {
  const ScratchFolder folder;
  write_sharded(folder);
  for (const std::string& path : {folder.path(), folder / "model.safetensors.index.json"}) {
    WeightSource source = WeightSource::open(path);
    EXPECT_EQ(source.files().size(), 2u);
    const SourceTensor* c = source.find("c");
    const WeightSource moved = std::move(source);
    EXPECT_EQ(moved.find("c"), c);  // addresses survive a move
    EXPECT_EQ(moved.file_of(*c), folder / "model-00002-of-00002.safetensors");
    EXPECT_EQ(first_value(moved, "b"), 3);
    EXPECT_EQ(first_value(moved, "c"), 5);
  }
}

TEST(WeightSource, NamesAMissingShard) {
  const ScratchFolder folder;
  write_sharded(folder);
  std::filesystem::remove(folder / "model-00001-of-00002.safetensors");
  EXPECT_TRUE(refused(folder.path(),
                      {"index.json", "1 problem", "model-00001-of-00002.safetensors with 2 tensors is missing"}));
}

TEST(WeightSource, RefusesATensorInTwoShards) {
  const ScratchFolder folder;
  write_sharded(folder);
  write_tensors(folder / "model-00002-of-00002.safetensors", {numbers("c", 5), numbers("a", 1)});
  EXPECT_TRUE(refused(folder.path(), {"must be in one file", "'a'", "model-00001-of", "model-00002-of"}));
}

TEST(WeightSource, NamesEveryDisagreementWithTheIndex) {
  const ScratchFolder folder;
  write_sharded(folder);
  write_tensors(folder / "model-00002-of-00002.safetensors", {numbers("b", 5), numbers("x", 5)});
  write_tensors(folder / "model-00001-of-00002.safetensors", {numbers("a", 5)});
  EXPECT_TRUE(refused(
      folder.path(),
      {"3 problems", "'b' must be in model-00001-of-00002.safetensors; got it in " + (folder / "model-00002"),
       "'c' must be in model-00002-of-00002.safetensors; got it in no shard", "'x' of ", "is not in the index"}));
}

TEST(WeightSource, RefusesABadIndex) {
  const ScratchFolder folder;
  const std::string path = folder / "model.safetensors.index.json";
  write_text(path, "{");
  EXPECT_TRUE(refused(path, {path, "must be JSON"}));
  for (const char* text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})"}) {
    write_text(path, text);
    EXPECT_TRUE(refused(path, {path, "weight_map"})) << text;
  }
  for (const char* shard : {"\"../model.safetensors\"", "\"/etc/passwd\"", "3"}) {
    write_text(path, std::string("{\"weight_map\": {\"a\": ") + shard + "}}");
    EXPECT_TRUE(refused(path, {path, "files of the same folder", shard, "'a'"}));
  }
  std::filesystem::remove(path);
  EXPECT_TRUE(refused(path, {path, "No such file"}));
}

TEST(WeightSource, RefusesFoldersWithoutWeights) {
  const ScratchFolder folder;
  EXPECT_TRUE(refused(folder.path(), {folder.path(), "model.safetensors", "pytorch_model.bin", "got none of them"}));
  write_text(folder / "pytorch_model.bin", "PK\x03\x04");
  EXPECT_TRUE(refused(folder.path(), {"pytorch_model.bin: expected a whole zip archive"}));
  write_text(folder / "pytorch_model.bin.index.json", "{}");
  EXPECT_TRUE(refused(folder.path(), {"either pytorch_model.bin or pytorch_model.bin.index.json; got both"}));
  write_sharded(folder);
  write_tensors(folder / "model.safetensors", {numbers("a", 1)});
  EXPECT_TRUE(refused(folder.path(), {"got both"}));
  EXPECT_TRUE(refused(folder / "none", {folder / "none", "No such file"}));
}

TEST(WeightSource, PassesOnWhatIsWrongWithAShard) {
  const ScratchFolder folder;
  write_sharded(folder);
  std::filesystem::resize_file(folder / "model-00002-of-00002.safetensors", 40);
  EXPECT_TRUE(refused(folder.path(), {folder / "model-00002-of-00002.safetensors", "header length"}));
}

}  // namespace
}  // namespace permafrost::testing
