#include "core/weights/load_ranges.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "core/device/buffer.h"
#include "core/weights/load.h"
#include "core/weights/match.h"
#include "tests/weights/scratch.h"

namespace permafrost::testing {
namespace {

class LoadRanges : public ::testing::Test {
 protected:
  const WeightSource& store(const std::vector<NamedTensor>& tensors) {
    write_tensors(folder_ / "w.safetensors", tensors);
    source_ = std::make_unique<WeightSource>(WeightSource::open(folder_ / "w.safetensors"));
    return *source_;
  }
  /// All of a tensor, as `out`.
  ReadRange whole(const std::string& name, const Tensor& out, std::vector<const SourceTensor*> aliases = {}) const {
    return {&source_->at(name), 0, out.elements(), out.dtype(), static_cast<std::byte*>(out.raw()), std::move(aliases)};
  }

  ScratchFolder folder_;
  std::unique_ptr<WeightSource> source_;
};

TEST_F(LoadRanges, PiecesCutAnywhereAreTheWholeInEveryDType) {
  const int64_t n = 700'001;  // more than one chunk of every dtype
  for (const DType from : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    const WeightSource& source = store({{"other", random_tensor(DType::kF32, {3}, 1)},
                                        {"w", random_tensor(from, {n}, 5)},
                                        {"last", random_tensor(from, {1}, 2)}});
    for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
      const OwnedTensor want = filled_tensor(to, {n}, 0), got = filled_tensor(to, {n}, 0x5A);
      const LoadedSlice loaded = load_tensor(source, source.at("w"), want, {true, false});
      const OwnedTensor last = filled_tensor(to, {1}, 0);
      std::vector<ReadRange> ranges{whole("last", last)};
      const std::vector<int64_t> cuts{n, 699'999, 300'000, 1, 0};  // later ones first: order must not matter
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        ReadRange range = whole("w", got);
        range.first_element = cuts[i + 1];
        range.elements = cuts[i] - cuts[i + 1];
        range.target += cuts[i + 1] * size_of(to);
        ranges.push_back(range);
      }
      const RangesRead read = load_ranges(source, ranges, true);
      EXPECT_TRUE(same_bits(got, want)) << to_string(from) << ' ' << to_string(to);
      EXPECT_TRUE(got.canaries_intact());
      EXPECT_EQ(read.bytes, (n + 1) * size_of(from));
      double change = 0;
      for (size_t i = 1; i < ranges.size(); ++i) {
        EXPECT_EQ(read.statistics[i].elements, ranges[i].elements);
        change = std::max(change, read.statistics[i].largest_relative_change);
      }
      EXPECT_EQ(change, loaded.statistics.largest_relative_change);
    }
  }
}

TEST_F(LoadRanges, ReadsNothingForNothing) {
  const WeightSource& source = store({{"w", random_tensor(DType::kF32, {3}, 1)}});
  EXPECT_EQ(load_ranges(source, {}).bytes, 0);
  const ReadRange empty{&source.at("w"), 3, 0, DType::kF32, nullptr};
  EXPECT_EQ(load_ranges(source, {&empty, 1}).statistics[0].elements, 0);
}

TEST_F(LoadRanges, NamesValuesThatAreNotFiniteOrTooLarge) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const WeightSource& source = store({{"good", make_tensor(DType::kF32, {2}, {1, 2})},
                                      {"layer.w", make_tensor(DType::kF32, {5}, {1, nan, inf, 1e6, -inf})}});
  for (const DType to : {DType::kF32, DType::kF16}) {
    const OwnedTensor out = filled_tensor(to, {5}, 0), good = filled_tensor(to, {2}, 0);
    std::vector<ReadRange> ranges{whole("good", good), whole("layer.w", out)};
    EXPECT_TRUE(
        throws_error([&] { load_ranges(source, ranges); }, ErrorKind::kWeights,
                     {folder_ / "w.safetensors", "must be finite; got 3 NaN or infinite of 5 [param=layer.w]"}));
    ranges[1].first_element = 1;
    ranges[1].elements = 2;
    EXPECT_TRUE(throws_error([&] { load_ranges(source, ranges); }, ErrorKind::kWeights,
                             {"got 2 NaN or infinite of 2 in elements 1..2 [param=layer.w]"}));
    ranges[1].first_element = 0;
    ranges[1].elements = 1;
    load_ranges(source, ranges);
  }
  const OwnedTensor half = filled_tensor(DType::kF16, {1}, 0);
  ReadRange large = whole("layer.w", half);
  large.first_element = 3;
  EXPECT_TRUE(throws_error(
      [&] {
        load_ranges(source, {&large, 1});
      },
      ErrorKind::kWeights, {"must fit f16; got 1 too large of 1 in elements 3..3", "[param=layer.w]"}));
}

TEST_F(LoadRanges, ReadsInTheOrderOfTheFile) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const WeightSource& source =
      store({{"z", make_tensor(DType::kF32, {2}, {1, nan})}, {"a", make_tensor(DType::kF32, {1}, {nan})}});
  const OwnedTensor z = filled_tensor(DType::kF32, {2}, 0), a = filled_tensor(DType::kF32, {1}, 0);
  const std::vector<ReadRange> ranges{whole("a", a), whole("z", z)};
  EXPECT_TRUE(throws_error([&] { load_ranges(source, ranges); }, ErrorKind::kWeights, {"[param=z]"}));
}

TEST_F(LoadRanges, RefusesRangesAndDTypesThatCannotBe) {
  const WeightSource& source =
      store({{"w", make_tensor(DType::kF32, {3}, {1, 2, 3})}, {"ids", make_tensor(DType::kI32, {3}, {1, 2, 3})}});
  const OwnedTensor out = filled_tensor(DType::kF32, {3}, 0);
  for (const auto& [first, elements] : {std::pair<int64_t, int64_t>{-1, 1}, {2, 2}, {4, 0}, {0, -1}}) {
    ReadRange range = whole("w", out);
    range.first_element = first;
    range.elements = elements;
    EXPECT_TRUE(throws_error(
        [&] {
          load_ranges(source, {&range, 1});
        },
        ErrorKind::kInvalidArgument, {"within the 3 elements", "[param=w]"}));
  }
  const ReadRange ids = whole("ids", out);
  EXPECT_TRUE(throws_error(
      [&] {
        load_ranges(source, {&ids, 1});
      },
      ErrorKind::kWeights, {"can become f32; got I32", "[param=ids]"}));
}

TEST_F(LoadRanges, AliasesMustBeEqual) {
  const int64_t rows = 5000, width = 300, changed = 4321;  // several chunks
  const OwnedTensor values = random_tensor(DType::kBF16, {rows, width}, 1);
  const OwnedTensor wide = make_tensor(DType::kF32, {rows, width}, values_of(values));
  for (const OwnedTensor& same : {values, wide}) {
    const DType dtype = same.view().dtype();
    const OwnedTensor other = same;
    auto* bytes = static_cast<std::byte*>(other.view().raw());
    bytes[(changed * width + width - 1) * size_of(dtype)] ^= std::byte{1};
    const WeightSource& source = store({{"e", values}, {"same", same}, {"other", other}});
    const OwnedTensor out = filled_tensor(DType::kF32, {rows, width}, 0);
    const ReadRange good = whole("e", out, {&source.at("same")});
    EXPECT_EQ(load_ranges(source, {&good, 1}).bytes, rows * width * (2 + size_of(dtype)));
    EXPECT_TRUE(same_bits(out, wide));
    ReadRange bad = whole("e", out, {&source.at("same"), &source.at("other")});
    EXPECT_TRUE(throws_error(
        [&] {
          load_ranges(source, {&bad, 1});
        },
        ErrorKind::kWeights,
        {folder_ / "w.safetensors", "untied: 'other' must equal 'e'; they differ first in row 4321"}));
    // Who reads other rows does not see it: each rank compares what it reads.
    bad.elements = changed * width;
    load_ranges(source, {&bad, 1});
    bad.first_element = changed * width + width - 1;
    bad.elements = 1;
    EXPECT_TRUE(throws_error([&] { load_ranges(source, {&bad, 1}); }, ErrorKind::kWeights, {"first in row 4321"}));
  }
}

/// A line of /proc/self/status in bytes.
int64_t status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name)) return std::stoll(line.substr(name.size())) * 1024;
  return -1;
}

TEST_F(LoadRanges, NeedsLittleMemoryBesideTheTargets) {
  const int64_t elements = 75 << 20, kept = elements / 2;  // 300 MiB of f32, of which half is kept, as bf16
  {
    SafetensorsWriter writer(folder_ / "large",
                             {{"w", {{elements}, DType::kF32}}, {"alias", {{elements}, DType::kF32}}});
    const std::vector<std::byte> piece(size_t{4} << 20);
    for (int64_t done = 0; done < 8 * elements; done += static_cast<int64_t>(piece.size())) writer.write(piece);
    writer.finish();
  }
  // A child's high-water mark begins at what it has.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const int64_t before = status_bytes("VmHWM:");
    const WeightSource source = WeightSource::open(folder_ / "large");
    const Buffer target("half", 2 * kept);
    const ReadRange range{&source.at("w"), kept, kept, DType::kBF16, target.data(), {&source.at("alias")}};
    const int64_t read = load_ranges(source, {&range, 1}).bytes;
    const int64_t used = status_bytes("VmHWM:") - before;
    // The share itself is there in full, or the mark means nothing.
    const bool good = read == 8 * kept && before > 0 && used >= 2 * kept && used <= 2 * kept + (int64_t{64} << 20);
    std::fprintf(stderr, "used %.1f MiB for a share of %.1f MiB\n", static_cast<double>(used) / 1048576,
                 static_cast<double>(2 * kept) / 1048576);
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace permafrost::testing
