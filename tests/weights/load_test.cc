#include "core/weights/load.h"

#include <cmath>
#include <limits>

#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

WeightSource write_and_open(const ScratchFolder& folder, const std::vector<NamedTensor>& tensors) {
  write_tensors(folder / "w.safetensors", tensors);
  return WeightSource::open(folder / "w.safetensors");
}

TEST(LoadTensor, ConvertsEveryPair) {
  const ScratchFolder folder;
  for (const DType from : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    const OwnedTensor values = random_tensor(from, {7, 500}, 5);
    const WeightSource source = write_and_open(folder, {{"w", values}});
    for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
      const OwnedTensor out = filled_tensor(to, {7, 500}, 0x5A);
      const LoadedSlice loaded = load_tensor(source, source.at("w"), out, {true, false});
      EXPECT_TRUE(same_bits(out, make_tensor(to, {7, 500}, values_of(values)))) << to_string(from) << to_string(to);
      EXPECT_TRUE(out.canaries_intact());
      EXPECT_EQ(loaded.statistics.elements, 3500);
      EXPECT_LE(loaded.statistics.largest_relative_change, to == DType::kBF16  ? 0x1p-8
                                                           : to == DType::kF16 ? 0.01
                                                                               : 0x1p-24);
      EXPECT_TRUE(loaded.file_sha256.empty());
    }
  }
}

TEST(LoadSlice, SlicesBeyondOneChunkAreTheWhole) {
  const ScratchFolder folder;
  const int64_t n = 5'000'000;  // 20 MB: three chunks
  const OwnedTensor values = random_tensor(DType::kF32, {n}, 5);
  const WeightSource source = write_and_open(folder, {{"before", make_tensor(DType::kU8, {1}, {1})}, {"w", values}});
  const OwnedTensor whole = filled_tensor(DType::kBF16, {n}, 0);
  const LoadedSlice loaded = load_tensor(source, source.at("w"), whole, {false, true});
  EXPECT_EQ(loaded.statistics.elements, n);
  EXPECT_EQ(loaded.file_sha256, sha256(values.view().raw(), static_cast<size_t>(values.view().bytes())));
  EXPECT_EQ(loaded.stored_sha256, sha256(whole.view().raw(), static_cast<size_t>(whole.view().bytes())));
  EXPECT_TRUE(same_bits(whole, make_tensor(DType::kBF16, {n}, values_of(values))));
  const OwnedTensor part = filled_tensor(DType::kBF16, {n - 1}, 0);
  load_slice(source, source.at("w"), 1, DType::kBF16,
             {static_cast<std::byte*>(part.view().raw()), static_cast<size_t>(part.view().bytes())});
  EXPECT_EQ(std::memcmp(part.view().raw(), whole.view().data<bfloat16>() + 1, static_cast<size_t>(part.view().bytes())),
            0);
}

TEST(LoadSlice, CopiesIntegersAndEmptyTensors) {
  const ScratchFolder folder;
  const OwnedTensor ids = make_tensor(DType::kI64, {3}, {1, 2, 3});
  const WeightSource source = write_and_open(folder, {{"ids", ids}, {"none", make_tensor(DType::kF32, {0, 3}, {})}});
  const OwnedTensor out = filled_tensor(DType::kI64, {3}, 0);
  load_tensor(source, source.at("ids"), out);
  EXPECT_TRUE(same_bits(out, ids));
  const OwnedTensor none = filled_tensor(DType::kBF16, {0, 3}, 0);
  EXPECT_EQ(load_tensor(source, source.at("none"), none).statistics.elements, 0);
}

TEST(LoadTensor, RefusesValuesThatAreNotFinite) {
  const ScratchFolder folder;
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const DType from : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    const WeightSource source = write_and_open(folder, {{"layer.w", make_tensor(from, {5}, {1, nan, inf, 2, -inf})}});
    for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
      const OwnedTensor out = filled_tensor(to, {5}, 0);
      EXPECT_TRUE(
          throws_error([&] { load_tensor(source, source.at("layer.w"), out); }, ErrorKind::kWeights,
                       {folder / "w.safetensors", "must be finite; got 3 NaN or infinite of 5", "[param=layer.w]"}));
    }
  }
}

TEST(LoadTensor, RefusesValuesTooLargeForTheTarget) {
  const ScratchFolder folder;
  const WeightSource source = write_and_open(folder, {{"w", make_tensor(DType::kF32, {3}, {1, 1e6, -70000})}});
  const OwnedTensor half = filled_tensor(DType::kF16, {3}, 0), brain = filled_tensor(DType::kBF16, {3}, 0);
  EXPECT_TRUE(throws_error([&] { load_tensor(source, source.at("w"), half); }, ErrorKind::kWeights,
                           {"must fit f16; got 2 too large of 3", "[param=w]"}));
  load_tensor(source, source.at("w"), brain);
}

TEST(LoadTensor, RefusesWrongShapeAndDType) {
  const ScratchFolder folder;
  const WeightSource source = write_and_open(folder, {{"w", make_tensor(DType::kI32, {3}, {1, 2, 3})}});
  const OwnedTensor floats = filled_tensor(DType::kF32, {3}, 0), pair = filled_tensor(DType::kI32, {2}, 0);
  EXPECT_TRUE(throws_error([&] { load_tensor(source, source.at("w"), floats); }, ErrorKind::kWeights,
                           {"can become f32; got I32", "[param=w]"}));
  EXPECT_TRUE(throws_error([&] { load_tensor(source, source.at("w"), pair); }, ErrorKind::kWeights,
                           {"expected shape (2); got (3)", "[param=w]"}));
  std::vector<std::byte> out(8);
  for (const auto& [first, bytes] : {std::pair<int64_t, size_t>{-1, 4}, {2, 8}, {4, 0}, {0, 3}})
    EXPECT_TRUE(
        throws_error([&] { load_slice(source, source.at("w"), first, DType::kI32, std::span(out).first(bytes)); },
                     ErrorKind::kInvalidArgument, {"within the 3 elements", "[param=w]"}))
        << first << " " << bytes;
}

TEST(LoadTensor, ListedDTypesAreRefusedInWords) {
  const ScratchFolder folder;
  write_text(folder / "q.safetensors", raw_file(R"({"q":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[0,2]}})", "ab"));
  const WeightSource source = WeightSource::open(folder / "q.safetensors");
  const OwnedTensor out = filled_tensor(DType::kF32, {2}, 0);
  EXPECT_TRUE(throws_error([&] { load_tensor(source, source.at("q"), out); }, ErrorKind::kWeights,
                           {"can become f32; got F8_E5M2", "[param=q]"}));
}

}  // namespace
}  // namespace permafrost::testing
