#include "core/weights/torch_archive.h"

#include "core/weights/load_ranges.h"
#include "core/weights/source.h"
#include "tests/weights/pickle_writer.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::string weight_file(const std::string& name) { return golden_path("weight_files/" + name); }

const SafetensorsReader& expected() {
  static const SafetensorsReader reader(weight_file("expected.safetensors"));
  return reader;
}

/// Compares every tensor of a file with those that the goldens keep under `prefix`, whole and in slices that cut
/// elements.
void expect_tensors(const std::string& path, const std::string& prefix) {
  const auto file = open_tensor_file(path);
  size_t wanted = 0;
  for (const StoredTensor& tensor : expected().tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    ++wanted;
    const std::string name = tensor.name.substr(prefix.size());
    SCOPED_TRACE(path + " " + name);
    const StoredTensor* found = file->find(name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->shape, tensor.shape);
    EXPECT_EQ(found->dtype_name, tensor.dtype_name);
    const std::vector<std::byte> bytes = expected().read_all(tensor.name);
    EXPECT_EQ(file->read_all(name), bytes);
    std::vector<std::byte> pieces(bytes.size());
    for (size_t at = 0; at < bytes.size(); at += 7)
      file->read(name, static_cast<int64_t>(at), std::span(pieces).subspan(at, std::min<size_t>(7, bytes.size() - at)));
    EXPECT_EQ(pieces, bytes);
  }
  EXPECT_EQ(file->tensors().size(), wanted);
  EXPECT_GT(wanted, 0u);
}

TEST(TorchArchive, ReadsWhatTorchSaveWrites) {
  expect_tensors(weight_file("dtypes.pth"), "dtypes.pth/");
  for (const char* protocol : {"3", "4", "5"})
    expect_tensors(weight_file(concat("protocol", protocol, ".pth")), "dtypes.pth/");
  expect_tensors(weight_file("views.pt"), "views.pt/");
  expect_tensors(weight_file("opt.bin"), "opt.bin/");
  expect_tensors(weight_file("parameters.bin"), "parameters.bin/");
  expect_tensors(weight_file("checkpoint.pth"), "checkpoint.pth/");
}

TEST(TorchArchive, TellsWhatElseACheckpointHolds) {
  const auto file = open_tensor_file(weight_file("checkpoint.pth"));
  const std::map<std::string, std::string> metadata{
      {"torch.dict", "model"},
      {"torch.not_read", "optimizer"},
      {"epoch", "7"},
      {"best_valid", "0.5325"},
      {"best_epoch", "[5]"},
      {"lr_scheduler", R"({"base_values":[2e-05],"t_initial":8,"warmup":null})"},
      {"config", R"({"injected_hidden_states":6,"lr":2e-05,"text_model":"facebook/opt-2.7b","use_vis_prefix":true})"}};
  EXPECT_EQ(file->metadata(), metadata);
}

TEST(TorchArchive, ListsDtypesItCannotConvert) {
  const auto file = open_tensor_file(weight_file("float8.pt"));
  EXPECT_EQ(file->at("w").dtype_name, "F8_E4M3");
  EXPECT_FALSE(file->at("w").dtype);
  EXPECT_EQ(file->at("w").bytes, 4);
  EXPECT_EQ(file->at("x").dtype, DType::kF16);
}

TEST(TorchArchive, IsASourceLikeAnyOther) {
  const ScratchFolder folder;
  const WeightSource sharded = WeightSource::open(weight_file("sharded"));
  EXPECT_EQ(sharded.files().size(), 2u);
  EXPECT_EQ(sharded.tensors().size(), 9u);
  for (const SourceTensor& tensor : sharded.tensors()) {
    std::vector<std::byte> bytes(static_cast<size_t>(tensor.stored.bytes));
    sharded.read(tensor, 0, bytes);
    EXPECT_EQ(bytes, expected().read_all("dtypes.pth/" + tensor.stored.name));
  }
  std::filesystem::copy(weight_file("opt.bin"), folder / "pytorch_model.bin");
  EXPECT_TRUE(WeightSource::open(folder.path()).find("lm_head.weight"));
  write_tensors(folder / "model.safetensors", {{"a", make_tensor(DType::kF32, {1}, {1})}});
  EXPECT_TRUE(WeightSource::open(folder.path()).find("a")) << "safetensors come first where a folder has both";
}

TEST(TorchArchive, LoadsRangesWithConversionAndTies) {
  const WeightSource source = WeightSource::open(weight_file("opt.bin"));
  const SourceTensor &embedding = source.at("model.decoder.embed_tokens.weight"), &head = source.at("lm_head.weight");
  std::vector<float> values(160), wanted(160);
  load_ranges(source, std::vector<ReadRange>{
                          {&embedding, 0, 160, DType::kF32, reinterpret_cast<std::byte*>(values.data()), {&head}}});
  convert_block(DType::kF16, expected().read_all("opt.bin/lm_head.weight").data(), DType::kF32, wanted.data(), 160);
  EXPECT_EQ(values, wanted);
  const WeightSource views = WeightSource::open(weight_file("views.pt"));
  const SourceTensor &transposed = views.at("transposed"), &permuted = views.at("permuted");
  std::vector<float> part(20), other(12);
  load_ranges(views,
              std::vector<ReadRange>{{&transposed, 15, 20, DType::kF32, reinterpret_cast<std::byte*>(part.data())},
                                     {&permuted, 12, 12, DType::kF32, reinterpret_cast<std::byte*>(other.data())}});
  const std::vector<std::byte> whole = expected().read_all("views.pt/transposed"),
                               whole2 = expected().read_all("views.pt/permuted");
  EXPECT_EQ(std::memcmp(part.data(), whole.data() + 60, 80), 0);
  EXPECT_EQ(std::memcmp(other.data(), whole2.data() + 48, 48), 0);
}

::testing::AssertionResult refused_golden(const std::string& name, std::vector<std::string> parts) {
  parts.push_back(weight_file("refused/" + name));
  return throws_error([&] { open_tensor_file(weight_file("refused/" + name)); }, ErrorKind::kWeights, parts);
}

TEST(TorchArchive, RefusesFilesThatPythonWouldExecute) {
  EXPECT_TRUE(refused_golden("os_system.pth", {"global posix.system", "nothing was executed"}));
  EXPECT_TRUE(refused_golden("eval.pth", {".eval", "nothing was executed"}));
  EXPECT_TRUE(refused_golden("module.pth", {"global torch.nn.modules.linear.Linear"}));
  EXPECT_FALSE(std::filesystem::exists("executed"));
}

TEST(TorchArchive, RefusesOtherKindsByName) {
  EXPECT_TRUE(refused_golden("legacy.pth", {"PyTorch file from before 1.6", "torch.save(torch.load("}));
  EXPECT_TRUE(refused_golden("script.pt", {"TorchScript", "state_dict()"}));
  EXPECT_TRUE(refused_golden("sparse.pth", {"global torch._utils._rebuild_sparse_tensor"}));
  EXPECT_TRUE(refused_golden("expanded.pth", {"tensor 'w'", "at most the 4 bytes of its storage", "(1000, 1000)"}));
  const ScratchFolder folder;
  write_text(folder / "x.zip", zip_bytes({{.name = "readme", .data = "x"}}));
  EXPECT_TRUE(throws_error([&] { open_tensor_file(folder / "x.zip"); }, ErrorKind::kWeights,
                           {"another zip archive", "'readme'"}));
  write_text(folder / "x.zip", zip_bytes({}));
  EXPECT_TRUE(throws_error([&] { open_tensor_file(folder / "x.zip"); }, ErrorKind::kWeights, {"another zip archive"}));
  write_text(folder / "x", "");
  EXPECT_TRUE(throws_error([&] { open_tensor_file(folder / "x"); }, ErrorKind::kWeights, {"0 bytes"}));
  EXPECT_TRUE(throws_error([&] { open_tensor_file(folder / "none"); }, ErrorKind::kWeights,
                           {"a file of weights", "No such file"}));
}

class TorchArchiveMade : public ::testing::Test {
 protected:
  /// An archive with one storage of eight floats, and a dict with this value as "w".
  ::testing::AssertionResult refused(const std::string& value, std::vector<std::string> parts) {
    return refused_entries({{.name = "a/data.pkl", .data = p_file(p_dict({p_text("w"), value}))},
                            {.name = "a/data/0", .data = std::string(32, 'x')}},
                           std::move(parts));
  }
  ::testing::AssertionResult refused_entries(const std::vector<ZipEntry>& entries, std::vector<std::string> parts) {
    write_text(path_, zip_bytes(entries));
    parts.push_back(path_);
    return throws_error([&] { open_tensor_file(path_); }, ErrorKind::kWeights, parts);
  }
  static std::string floats(int64_t offset, const std::vector<int64_t>& size, const std::vector<int64_t>& stride) {
    return p_tensor(p_storage("FloatStorage", "0", 8), offset, size, stride);
  }

  ScratchFolder folder_;
  std::string path_ = folder_ / "made.pth";
};

TEST_F(TorchArchiveMade, RefusesTensorsOutsideTheirStorage) {
  write_text(path_, zip_bytes({{.name = "a/data.pkl", .data = p_file(p_dict({p_text("w"), floats(2, {2, 3}, {3, 1})}))},
                               {.name = "a/data/0", .data = std::string(32, 'x')}}));
  EXPECT_EQ(open_tensor_file(path_)->at("w").bytes, 24);
  const int64_t huge = int64_t{1} << 62;  // an empty tensor may say what it likes
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{0, huge, huge}, std::vector<int64_t>{huge, huge, 0}}) {
    write_text(
        path_,
        zip_bytes({{.name = "a/data.pkl", .data = p_file(p_dict({p_text("w"), floats(0, shape, {huge, huge, 1})}))},
                   {.name = "a/data/0", .data = std::string(32, 'x')}}));
    EXPECT_TRUE(open_tensor_file(path_)->read_all("w").empty());
  }
  const std::vector<std::string> outside{"tensor 'w'", "elements within the 8 of its storage"};
  EXPECT_TRUE(refused(floats(3, {2, 3}, {3, 1}), outside));
  EXPECT_TRUE(refused(floats(0, {2, 2}, {7, 1}), outside));
  EXPECT_TRUE(refused(floats(9, {0}, {1}), outside));
  EXPECT_TRUE(refused(floats(-1, {2}, {1}), outside));
  EXPECT_TRUE(refused(floats(INT64_MAX, {2}, {1}), outside));
  EXPECT_TRUE(refused(floats(0, {2}, {INT64_MAX}), outside));
  EXPECT_TRUE(refused(floats(0, {2, 2}, {INT64_MAX / 2, INT64_MAX / 2 + 9}), outside));
  EXPECT_TRUE(refused(floats(0, {3, 3}, {1, 1}), {"at most the 32 bytes of its storage", "(3, 3) F32"}));
  EXPECT_TRUE(refused(floats(0, {INT64_MAX, INT64_MAX}, {0, 0}), {"at most the 32 bytes of its storage"}));
  EXPECT_TRUE(refused(floats(0, {-1}, {1}), {"extents and strides of 0 and up; got -1 and 1"}));
  EXPECT_TRUE(refused(floats(0, {2}, {-1}), {"extents and strides of 0 and up; got 2 and -1"}));
  EXPECT_TRUE(refused(floats(0, {2}, {1, 1}), {"each with a stride; got 1 axes and 2 strides"}));
  EXPECT_TRUE(refused(floats(0, std::vector<int64_t>(7, 1), std::vector<int64_t>(7, 1)), {"at most 6 axes"}));
}

TEST_F(TorchArchiveMade, RefusesStoragesThatDoNotFit) {
  EXPECT_TRUE(
      refused(p_tensor(p_storage("FloatStorage", "1", 8), 0, {1}, {1}), {"tensor 'w'", "no member 'a/data/1'"}));
  EXPECT_TRUE(refused(p_tensor(p_storage("FloatStorage", "../0", 8), 0, {1}, {1}), {"no member 'a/data/../0'"}));
  EXPECT_TRUE(
      refused(p_tensor(p_storage("FloatStorage", "0", 9), 0, {1}, {1}), {"a storage of 32 bytes", "9 elements"}));
  EXPECT_TRUE(refused(p_tensor(p_storage("DoubleStorage", "0", 8), 0, {1}, {1}), {"a storage of 32 bytes"}));
  EXPECT_TRUE(refused(p_tensor(p_storage("FloatStorage", "0", INT64_MAX), 0, {1}, {1}), {"a storage of 32 bytes"}));
  EXPECT_TRUE(refused(p_tensor(p_storage("UntypedStorage", "0", 32), 0, {1}, {1}),
                      {"a known dtype; got torch UntypedStorage"}));
  EXPECT_TRUE(refused("N", {"without any"}));
  const std::string tensor = floats(0, {8}, {1}), pickle = p_file(p_dict({p_text("w"), tensor, p_text("w"), tensor}));
  EXPECT_TRUE(
      refused_entries({{.name = "a/data.pkl", .data = pickle}, {.name = "a/data/0", .data = std::string(32, 'x')}},
                      {"names must differ", "'w' twice"}));
  EXPECT_TRUE(refused_entries({{.name = "a/data.pkl", .data = pickle}, {.name = "a/byteorder", .data = "big"}},
                              {"byte order 'big'"}));
  EXPECT_TRUE(refused_entries({{.name = "a/data.pkl", .data = std::string(70'000'000, 'N'), .deflate = true}},
                              {"at most 67108864 bytes in 'a/data.pkl'"}));
}

TEST_F(TorchArchiveMade, FindsDamageWhenAStorageIsReadWhole) {
  write_text(path_, zip_bytes({{.name = "a/data.pkl", .data = p_file(p_dict({p_text("w"), floats(0, {8}, {1})}))},
                               {.name = "a/data/0", .data = std::string(32, 'x'), .crc_change = 5}}));
  const auto file = open_tensor_file(path_);
  EXPECT_TRUE(throws_error([&] { file->read_all("w"); }, ErrorKind::kWeights, {path_, "expected crc32", "'a/data/0'"}));
}

}  // namespace
}  // namespace permafrost::testing
