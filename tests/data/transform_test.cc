#include "data/images/transform.h"

#include <cmath>
#include <tuple>

#include "data/images/warp.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

Image image_of(const GoldenBytes& golden) {
  Image image;
  image.set_up(golden.shape[1], golden.shape[0], golden.shape[2]);
  image.pixels = golden.values;
  return image;
}

::testing::AssertionResult floats_near(const std::vector<float>& got, const std::vector<float>& want) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << got.size() << " values, want " << want.size();
  for (size_t i = 0; i < got.size(); ++i) {
    // Three roundings of fp32: of x / 255, of the difference, of the quotient.
    const float bound = 4 * 0x1p-24f * std::max(4.0f, std::abs(want[i]));
    if (!(std::abs(got[i] - want[i]) <= bound))
      return ::testing::AssertionFailure() << "value " << i << ": got " << got[i] << ", want " << want[i];
  }
  return ::testing::AssertionSuccess();
}

class Transforms : public ::testing::Test {
 protected:
  Image golden_image(const std::string& name) { return image_of(golden_bytes(goldens_, name)); }
  SafetensorsReader goldens_{golden_path("transforms.safetensors")};
};

TEST_F(Transforms, Normalise) {
  const Image image = golden_image("normalise.src");
  std::vector<float> out(image.pixels.size());
  normalise(image.view(), {}, out.data());
  EXPECT_TRUE(floats_near(out, golden_floats(goldens_, "normalise.out")));
  TransformConfig plain;
  plain.mean = {0, 0, 0};
  plain.deviation = {1, 1, 1};
  normalise(image.view(), plain, out.data());
  EXPECT_TRUE(floats_near(out, golden_floats(goldens_, "to_float.out")));
}

TEST_F(Transforms, Evaluation) {
  TransformConfig config;
  config.size = 20;
  TransformScratch scratch;
  std::vector<float> out(3 * 20 * 20);
  transform_image(golden_image("eval.src").view(), config, {}, scratch, out.data());
  EXPECT_EQ(scratch.square.pixels, golden_bytes(goldens_, "eval.resized").values);
  EXPECT_TRUE(floats_near(out, golden_floats(goldens_, "eval.out")));
}

TEST_F(Transforms, Mirror) {
  Image image = golden_image("hflip.src");
  mirror(image);
  EXPECT_EQ(image.pixels, golden_bytes(goldens_, "hflip.out").values);
}

TEST_F(Transforms, CropAndResize) {
  const Image image = golden_image("crop.src");
  ResizeScratch scratch;
  for (const std::string i : {"0", "1", "2", "3"}) {
    const auto box = numbers(goldens_.metadata().at("crop." + i + ".box"));  // top, left, height, width
    const auto at = [&](size_t k) { return static_cast<int64_t>(box[k]); };
    const int64_t size = std::stoll(goldens_.metadata().at("crop." + i + ".size"));
    Image out;
    resize_image(image.view().crop(at(1), at(0), at(3), at(2)), ResizeFilter::kBicubic, size, size, scratch, out);
    EXPECT_EQ(out.pixels, golden_bytes(goldens_, "crop." + i + ".out").values) << i;
  }
}

TEST_F(Transforms, AugmentationsAsPublished) {
  const int level = std::stoi(goldens_.metadata().at("augment.level"));
  int compared = 0;
  for (const std::string source : {"photo", "dull", "flat", "noise"})
    for (AugmentOperation operation : kAugmentOperations) {
      const double value = augment_value(operation, level);
      const std::string name(to_string(operation));
      if (const auto given = goldens_.metadata().find(name + ".value"); given != goldens_.metadata().end()) {
        EXPECT_DOUBLE_EQ(value, std::stod(given->second)) << name;
      }
      const auto compare = [&](double signed_value, AugmentArithmetic arithmetic, const std::string& suffix) {
        const std::string golden = source + "." + name + suffix;
        if (!goldens_.find(golden)) return;
        Image image = golden_image(source + ".src"), scratch;
        augment(operation, signed_value, arithmetic, image, scratch);
        const GoldenBytes want = golden_bytes(goldens_, golden);
        ASSERT_EQ(image.pixels.size(), want.values.size()) << golden;
        size_t wrong = 0;
        for (size_t i = 0; i < want.values.size(); ++i) wrong += image.pixels[i] != want.values[i];
        EXPECT_EQ(wrong, 0u) << golden;
        ++compared;
      };
      compare(value, AugmentArithmetic::kPublished, "");
      compare(value, AugmentArithmetic::kIntended, ".intended");
      compare(value, AugmentArithmetic::kPublished, ".plus");
      compare(-value, AugmentArithmetic::kPublished, ".minus");
    }
  EXPECT_EQ(compared, 4 * 7 + 10);
}

TEST_F(Transforms, WholeTrainingChain) {
  TransformConfig config;
  config.size = std::stoll(goldens_.metadata().at("train.crop.size"));
  config.training = true;
  config.augment_arithmetic = AugmentArithmetic::kPublished;
  TransformDraws draws;
  const auto box = numbers(goldens_.metadata().at("train.crop.box"));
  draws.top = static_cast<int64_t>(box[0]);
  draws.left = static_cast<int64_t>(box[1]);
  draws.height = static_cast<int64_t>(box[2]);
  draws.width = static_cast<int64_t>(box[3]);
  draws.flip = goldens_.metadata().at("train.flip") == "true";
  ASSERT_EQ(goldens_.metadata().at("train.operations"), "ShearX.minus,Equalize");
  draws.steps = {{AugmentOperation::kShearX, -augment_value(AugmentOperation::kShearX, 7), true},
                 {AugmentOperation::kRotate, 21, false},
                 {AugmentOperation::kEqualize, 0, true}};
  TransformScratch scratch;
  std::vector<float> out(golden_floats(goldens_, "train.out").size());
  transform_image(golden_image("train.src").view(), config, draws, scratch, out.data());
  EXPECT_EQ(scratch.square.pixels, golden_bytes(goldens_, "train.second").values);
  EXPECT_TRUE(floats_near(out, golden_floats(goldens_, "train.out")));
}

TEST(TransformDraws, AreAFunctionOfTheirAddress) {
  TransformConfig config;
  config.training = true;
  const auto draw = [&](uint32_t epoch, uint64_t sample) {
    return draw_transform(config, 640, 480, Random(5, RandomPurpose::kAugment, epoch, sample));
  };
  const auto a = draw(1, 2), b = draw(1, 2), c = draw(2, 2), d = draw(1, 3);
  EXPECT_EQ(std::tie(a.left, a.top, a.width, a.height), std::tie(b.left, b.top, b.width, b.height));
  EXPECT_NE(std::tie(a.left, a.top, a.width, a.height), std::tie(c.left, c.top, c.width, c.height));
  EXPECT_NE(std::tie(a.left, a.top, a.width, a.height), std::tie(d.left, d.top, d.width, d.height));
}

/// Frequencies over many draws: 6 standard deviations around what the published code gives.
TEST(TransformDraws, HaveThePublishedDistribution) {
  TransformConfig config;
  config.training = true;
  constexpr int kDraws = 4000;
  std::array<int, 10> operations{};
  int flips = 0, applied = 0, negative = 0, with_sign = 0;
  double area = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto draws =
        draw_transform(config, 640, 480, Random(9, RandomPurpose::kAugment, 0, static_cast<uint64_t>(i)));
    ASSERT_TRUE(draws.left >= 0 && draws.top >= 0 && draws.left + draws.width <= 640 &&
                draws.top + draws.height <= 480);
    const double share = static_cast<double>(draws.width * draws.height) / (640.0 * 480.0);
    const double ratio = static_cast<double>(draws.width) / static_cast<double>(draws.height);
    EXPECT_TRUE(share > 0.495 && share <= 1.0) << share;
    EXPECT_TRUE(ratio > 0.745 && ratio < 1.345) << ratio;
    area += share;
    flips += draws.flip;
    ASSERT_EQ(draws.steps.size(), 2u);
    for (const auto& step : draws.steps) {
      ++operations[static_cast<size_t>(step.operation)];
      applied += step.applied;
      with_sign += is_signed(step.operation);
      negative += step.value < 0;
      EXPECT_EQ(std::abs(step.value), augment_value(step.operation, 7));
    }
  }
  const auto near = [](int count, double trials, double p) {
    return std::abs(count - trials * p) < 6 * std::sqrt(trials * p * (1 - p));
  };
  EXPECT_TRUE(near(flips, kDraws, 0.5)) << flips;
  EXPECT_TRUE(near(applied, 2 * kDraws, 0.5)) << applied;
  EXPECT_TRUE(near(negative, with_sign, 0.5)) << negative;
  for (int count : operations) EXPECT_TRUE(near(count, 2 * kDraws, 0.1)) << count;
  EXPECT_TRUE(area / kDraws > 0.65 && area / kDraws < 0.76) << area / kDraws;  // large areas fail to fit more often
}

TEST(TransformDraws, ExtremeShapesFallBackToTheCentre) {
  TransformConfig config;
  config.training = true;
  const auto wide = draw_transform(config, 1000, 10, Random(1, RandomPurpose::kAugment));
  EXPECT_EQ(std::tie(wide.width, wide.height), std::make_tuple(int64_t{13}, int64_t{10}));
  EXPECT_EQ(wide.left, (1000 - 13) / 2);
  const auto tall = draw_transform(config, 9, 1000, Random(1, RandomPurpose::kAugment));
  EXPECT_EQ(std::tie(tall.width, tall.height), std::make_tuple(int64_t{9}, int64_t{12}));
  const auto pixel = draw_transform(config, 1, 1, Random(1, RandomPurpose::kAugment));
  EXPECT_EQ(std::tie(pixel.width, pixel.height), std::make_tuple(int64_t{1}, int64_t{1}));
}

TEST(Transform, Contracts) {
  const std::vector<uint8_t> pixels(4 * 4 * 3);
  TransformConfig config;
  config.size = 2;
  config.training = true;
  TransformScratch scratch;
  std::vector<float> out(12);
  TransformDraws draws;
  draws.left = 2, draws.width = 3, draws.height = 1;
  EXPECT_TRUE(throws_error(
      [&] {
        transform_image({pixels.data(), 4, 4, 3, 12}, config, draws, scratch, out.data());
      },
      ErrorKind::kInvalidArgument, {"transform_image", "3 x 1 at 2,0"}));
  Image grey, other;
  grey.set_up(2, 2, 1);
  EXPECT_TRUE(throws_error([&] { augment(AugmentOperation::kEqualize, 0, {}, grey, other); },
                           ErrorKind::kInvalidArgument, {"augment", "got 1"}));
  EXPECT_TRUE(throws_error(
      [&] {
        warp_affine(grey.view(), {1, 0, 0, 0, 1, 0}, 0, other);
      },
      ErrorKind::kInvalidArgument, {"warp_affine", "got 1"}));
}

}  // namespace
}  // namespace permafrost::testing
