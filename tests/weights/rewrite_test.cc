#include "core/weights/rewrite.h"

#include "core/weights/strided.h"
#include "core/weights/torch_archive.h"
#include "core/weights/torch_writer.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

std::vector<std::byte> rewritten(const WeightSource& source, const RewrittenTensor& tensor, DType to) {
  std::vector<std::byte> bytes;
  rewrite(source, tensor, to,
          [&](std::span<const std::byte> data) { bytes.insert(bytes.end(), data.begin(), data.end()); });
  return bytes;
}

std::vector<float> as_floats(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(StridedView, GathersLikeLoopsOverItsAxes) {
  const Shape shape{3, 1, 4, 5};
  std::vector<int32_t> memory(4000);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<int32_t>(i);
  for (const std::vector<int64_t>& strides : std::vector<std::vector<int64_t>>{
           {20, 20, 5, 1}, {1, 7, 3, 12}, {40, 0, 5, 1}, {1000, 1, 50, 3}, {2, 0, 6, 24}, {0, 0, 0, 0}}) {
    const StridedView view(shape, strides);
    std::vector<int32_t> expected;
    for (int64_t a = 0; a < 3; ++a)
      for (int64_t c = 0; c < 4; ++c)
        for (int64_t d = 0; d < 5; ++d)
          expected.push_back(static_cast<int32_t>(a * strides[0] + c * strides[2] + d * strides[3]));
    EXPECT_EQ(view.extent(), *std::ranges::max_element(expected) + 1);
    for (int64_t first = 0; first < 60; first += 7)
      for (const int64_t count : {int64_t{1}, int64_t{13}, 60 - first}) {
        if (first + count > 60) continue;
        std::vector<int32_t> out(static_cast<size_t>(count));
        view.gather(reinterpret_cast<const std::byte*>(memory.data()), 4, first, count,
                    reinterpret_cast<std::byte*>(out.data()));
        EXPECT_EQ(out, std::vector<int32_t>(expected.begin() + first, expected.begin() + first + count)) << first;
      }
  }
  EXPECT_TRUE(StridedView(shape, std::vector<int64_t>{20, 9, 5, 1}).contiguous());
  EXPECT_FALSE(StridedView(shape, std::vector<int64_t>{40, 0, 5, 1}).contiguous());
  EXPECT_EQ(StridedView(shape, std::vector<int64_t>{40, 0, 5, 1}).run(), 20);
  EXPECT_TRUE(StridedView(Shape{}, std::vector<int64_t>{}).contiguous());
  EXPECT_EQ(StridedView(Shape{3, 0}, std::vector<int64_t>{5, 1}).extent(), 0);
}

TEST(Rewrite, StacksPartsAndMovesAxes) {
  const ScratchFolder folder;
  write_tensors(folder / "w.safetensors", {{"a", make_tensor(DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6})},
                                           {"b", make_tensor(DType::kF16, {2, 3}, {7, 8, 9, 10, 11, 12})}});
  const WeightSource source = WeightSource::open(folder / "w.safetensors");
  const RewritePart a{&source.at("a"), {1, 0}}, b{&source.at("b"), {1, 0}}, plain{&source.at("b")};
  EXPECT_EQ(as_floats(rewritten(source, {"x", {9, 2}, {a, b, plain}}, DType::kF32)),
            (std::vector<float>{1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12, 7, 8, 9, 10, 11, 12}));
}

TEST(Rewrite, LargeTensorsInPieces) {
  const ScratchFolder folder;
  const OwnedTensor values = random_tensor(DType::kF32, {700, 900}, 3);
  write_tensors(folder / "w.safetensors", {{"w", values}});
  const WeightSource source = WeightSource::open(folder / "w.safetensors");
  const auto whole = as_floats(rewritten(source, {"w", {700, 900}, {{&source.at("w")}}}, DType::kF32));
  const auto turned = as_floats(rewritten(source, {"w", {900, 700}, {{&source.at("w"), {1, 0}}}}, DType::kF32));
  ASSERT_EQ(whole.size(), 630'000u);
  EXPECT_EQ(std::memcmp(whole.data(), values.view().raw(), 2'520'000), 0);
  for (size_t i = 0; i < 900; ++i)
    for (size_t j = 0; j < 700; ++j) ASSERT_EQ(turned[i * 700 + j], whole[j * 900 + i]);
}

TEST(Rewrite, RefusesValuesThatDoNotFit) {
  const ScratchFolder folder;
  write_tensors(folder / "w.safetensors", {{"w", make_tensor(DType::kF32, {2, 1}, {1, 1e6})}});
  const WeightSource source = WeightSource::open(folder / "w.safetensors");
  for (const std::vector<int>& order : {std::vector<int>{}, std::vector<int>{1, 0}})
    EXPECT_TRUE(throws_error(
        [&] {
          rewritten(source, {"w", {2, 1}, {{&source.at("w"), order}}}, DType::kF16);
        },
        ErrorKind::kWeights, {"values must fit f16", "w.safetensors", "param=w"}));
}

TEST(Rewrite, CountsAllValuesThatDoNotFit) {
  const ScratchFolder folder;
  std::vector<double> values(700'000, 1);
  values.front() = values.back() = 1e6;  // in the first and in the last piece
  write_tensors(folder / "w.safetensors", {{"w", make_tensor(DType::kF32, {1000, 700}, values)}});
  const WeightSource source = WeightSource::open(folder / "w.safetensors");
  EXPECT_TRUE(throws_error(
      [&] {
        rewritten(source, {"w", {700, 1000}, {{&source.at("w"), {1, 0}}}}, DType::kF16);
      },
      ErrorKind::kWeights, {"values must fit f16; got 2 too large of 700000 [param=w]"}));
}

TEST(Rewrite, ComparesTiedTensors) {
  const ScratchFolder folder;
  write_tensors(folder / "w.safetensors", {{"a", make_tensor(DType::kF32, {2, 2}, {1, 2, 3, 4})},
                                           {"same", make_tensor(DType::kF16, {2, 2}, {1, 2, 3, 4})},
                                           {"other", make_tensor(DType::kF32, {2, 2}, {1, 2, 3, 5})},
                                           {"long", make_tensor(DType::kF32, {1, 2}, {1, 2})}});
  const WeightSource source = WeightSource::open(folder / "w.safetensors");
  require_equal(source, source.at("a"), source.at("same"));
  EXPECT_TRUE(throws_error([&] { require_equal(source, source.at("a"), source.at("other")); }, ErrorKind::kWeights,
                           {"untied: 'other' must equal 'a'", "row 1"}));
  EXPECT_TRUE(throws_error([&] { require_equal(source, source.at("a"), source.at("long")); }, ErrorKind::kWeights,
                           {"untied: 'long' must equal 'a' (2, 2); got (1, 2)"}));
}

TEST(TorchWriter, WritesWhatTorchArchiveReads) {
  const ScratchFolder folder;
  const Json others = parse_json(
      R"({"epoch": 7, "large": 5000000000, "config": {"lr": 2e-5, "names": ["a", null, true], "négatif": -3}})");
  const std::vector<NamedTensor> tensors{
      {"b.0", random_tensor(DType::kF32, {3, 5}, 1)},
      {"empty", make_tensor(DType::kF32, {0, 2}, {})},
      {"a", random_tensor(DType::kBF16, {7}, 2)},
      {"scalar", make_tensor(DType::kF64, {}, {3})},
      {"none", make_tensor(DType::kF16, {0}, {})},
      {"wide", make_tensor(DType::kF16, {0, int64_t{1} << 62, int64_t{1} << 62}, {})}};
  std::vector<TensorDeclaration> declarations;
  std::vector<std::byte> data;
  for (const NamedTensor& t : tensors) {
    declarations.push_back({t.name, t.tensor.view().spec()});
    const auto* bytes = static_cast<const std::byte*>(t.tensor.view().raw());
    data.insert(data.end(), bytes, bytes + t.tensor.view().bytes());
  }
  std::string first;
  for (const size_t piece : {size_t{1}, size_t{11}, data.size()}) {
    TorchWriter writer(folder / "x.pth", declarations, others);
    for (size_t at = 0; at < data.size(); at += piece)
      writer.write(std::span(data).subspan(at, std::min(piece, data.size() - at)));
    writer.finish();
    if (first.empty()) first = read_text(folder / "x.pth");
    EXPECT_EQ(read_text(folder / "x.pth"), first) << "pieces of " << piece;
  }
  const auto file = open_tensor_file(folder / "x.pth");
  EXPECT_EQ(file->tensors().size(), tensors.size());
  for (const NamedTensor& t : tensors) {
    const StoredTensor& stored = file->at(t.name);
    EXPECT_EQ(stored.shape, t.tensor.view().shape());
    EXPECT_EQ(stored.dtype, t.tensor.view().dtype());
    const auto bytes = file->read_all(t.name);
    EXPECT_TRUE(bytes.empty() || std::memcmp(bytes.data(), t.tensor.view().raw(), bytes.size()) == 0);
  }
  EXPECT_EQ(file->metadata().at("epoch"), "7");
  EXPECT_EQ(file->metadata().at("large"), "5000000000");
  EXPECT_EQ(parse_json(file->metadata().at("config")), others["config"]);
}

TEST(TorchWriter, RefusesWhatItCannotWrite) {
  const ScratchFolder folder;
  const TensorSpec two{{2}, DType::kF32};
  const std::string path = folder / "x.pth";
  EXPECT_TRUE(throws_error(
      [&] {
        TorchWriter(path, {{"a", two}, {"a", two}}, Json::object());
      },
      ErrorKind::kInvalidArgument, {"'a' twice"}));
  EXPECT_TRUE(throws_error(
      [&] {
        TorchWriter(path, {{"a", two}}, Json(3));
      },
      ErrorKind::kInvalidArgument, {"must be an object"}));
  EXPECT_TRUE(throws_error(
      [&] {
        TorchWriter(path, {{"a", {{1 << 20, 1 << 10}, DType::kF32}}}, Json::object());
      },
      ErrorKind::kWeights, {"less than 4 GiB"}));
  { const TorchWriter almost(path, {{"a", {{1 << 20, 1023}, DType::kF32}}}, Json::object()); }
  TorchWriter writer(path, {{"a", two}}, Json::object());
  EXPECT_TRUE(throws_error([&] { writer.finish(); }, ErrorKind::kInvalidArgument, {"takes 1 tensors; got 0"}));
  EXPECT_TRUE(throws_error([&] { writer.write(std::vector<std::byte>(9)); }, ErrorKind::kInvalidArgument,
                           {"got 1 bytes more"}));
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace permafrost::testing
