#include <cmath>
#include <set>

#include "core/base/check.h"
#include "core/base/sha256.h"
#include "data/demo/captions.h"
#include "data/demo/draw.h"
#include "data/demo/notes.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

constexpr uint64_t kSeed = 42;

std::set<std::string> all_captions() {
  std::set<std::string> captions;
  for_each_caption([&](const std::string& caption) { captions.insert(caption); });
  return captions;
}

std::set<std::string> words_of(const std::set<std::string>& captions) {
  std::set<std::string> words;
  for (const std::string& caption : captions) {
    std::istringstream in(caption);
    for (std::string word; in >> word;) words.insert(word);
  }
  return words;
}

TEST(DemoScene, ThereIsEnoughToSay) {
  EXPECT_GE(std::set(kSceneShapes.begin(), kSceneShapes.end()).size(), 6u);
  EXPECT_GE(std::set(kRelationNames.begin(), kRelationNames.end()).size(), 4u);
  std::set<std::string_view> colors;
  for (const SceneColor& color : kSceneColors) colors.insert(color.name);
  EXPECT_GE(colors.size(), 6u);
  const size_t kinds = kSceneShapes.size() * kSceneColors.size();
  EXPECT_EQ(all_captions().size(), kinds * (kinds - 1) * kRelationNames.size());
  EXPECT_GE(all_captions().size(), 2000u);
}

TEST(DemoScene, ColorsDifferFromEachOtherAndFromBackgrounds) {
  // As bright and as dark as they are drawn; a background's channels differ by twice its tint at most, and it is no
  // brighter than this.
  constexpr double kBrightestGround = kGroundMax + kGroundTint + kGroundContrast;
  const auto scaled = [](const SceneColor& color, double brightness) {
    std::array<double, 3> rgb{};
    for (size_t c = 0; c < 3; ++c) rgb[c] = std::min(255.0, color.rgb[c] * brightness);
    return rgb;
  };
  for (double brightness : {kBrightnessMin, kBrightnessMax})
    for (const SceneColor& a : kSceneColors) {
      const auto x = scaled(a, brightness);
      for (double other : {kBrightnessMin, kBrightnessMax})
        for (const SceneColor& b : kSceneColors) {
          const auto y = scaled(b, other);
          const double distance = std::hypot(x[0] - y[0], x[1] - y[1], x[2] - y[2]);
          EXPECT_TRUE(a.name == b.name || distance > 80) << a.name << ' ' << b.name << ' ' << distance;
        }
      const auto [low, high] = std::minmax({x[0], x[1], x[2]});
      EXPECT_TRUE(high - low > 2 * kGroundTint + 40 || low > kBrightestGround + 20) << a.name;
    }
}

TEST(DemoScene, AQuarterOfTheCaptionsIsHeldOutAndHasNoWordOfItsOwn) {
  std::set<std::string> held_out, kept;
  for (const std::string& caption : all_captions()) (is_held_out(caption) ? held_out : kept).insert(caption);
  const double share = static_cast<double>(held_out.size()) / static_cast<double>(held_out.size() + kept.size());
  EXPECT_NEAR(share, 0.25, 0.03);  // five standard deviations of 5,040 draws
  EXPECT_EQ(words_of(kept), words_of(all_captions()));
  // The rule as it is documented, on both sides of the limit: sha256sum begins with 3f and with 40.
  EXPECT_TRUE(is_held_out("a yellow circle left of a white bar"));
  EXPECT_FALSE(is_held_out("a yellow circle above a red bar"));
}

TEST(DemoScene, HeldOutCaptionsAreNotTrainedOnAndAreAQuarterOfTheTest) {
  for (int64_t i = 0; i < 3000; ++i) {
    EXPECT_FALSE(is_held_out(caption_of(sample_content(kSeed, SceneSplit::kTrain, i)))) << i;
    for (SceneSplit split : {SceneSplit::kVal, SceneSplit::kTest})
      EXPECT_EQ(is_held_out(caption_of(sample_content(kSeed, split, i))), i % 4 == 3) << to_string(split) << i;
  }
}

TEST(DemoScene, EveryShapeColorRelationAndBackgroundIsDrawn) {
  std::set<size_t> shapes, colors;
  std::set<Relation> relations;
  std::set<BackgroundKind> grounds;
  std::set<std::string> captions;
  for (int64_t i = 0; i < 20000; ++i) {
    const SceneContent content = sample_content(kSeed, SceneSplit::kTrain, i);
    EXPECT_NE(content.nearer, content.farther) << i;
    for (const ObjectKind& kind : {content.nearer, content.farther}) {
      shapes.insert(kind.shape);
      colors.insert(kind.color);
    }
    relations.insert(content.relation);
    captions.insert(caption_of(content));
    if (i < 100) grounds.insert(sample_scene(kSeed, SceneSplit::kTrain, i).background.kind);
  }
  EXPECT_EQ(shapes.size(), kSceneShapes.size());
  EXPECT_EQ(colors.size(), kSceneColors.size());
  EXPECT_EQ(relations.size(), kRelationNames.size());
  EXPECT_EQ(grounds.size(), kBackgroundNames.size());
  EXPECT_GE(captions.size(), 2000u);
}

TEST(DemoScene, RelationsHoldAndTheNearerObjectIsLarger) {
  for (SceneSplit split : {SceneSplit::kPretrain, SceneSplit::kTrain, SceneSplit::kVal, SceneSplit::kTest})
    for (int64_t i = 0; i < 1500; ++i) {
      const Scene scene = sample_scene(kSeed, split, i);
      const auto& [nearer, farther] = scene.objects;
      EXPECT_EQ(scene.id, scene_id(split, i));
      EXPECT_EQ(nearer.kind, scene.content.nearer);
      EXPECT_EQ(farther.kind, scene.content.farther);
      EXPECT_GE(nearer.radius, 1.3 * farther.radius);
      const double dx = nearer.x - farther.x, dy = nearer.y - farther.y;
      const double along[] = {-dx, dx, -dy, dy};
      const auto relation = static_cast<size_t>(scene.content.relation);
      EXPECT_GE(along[relation], 2 * std::abs(relation < 2 ? dy : dx)) << i;
      for (const SceneObject& object : scene.objects)
        for (double at : {object.x, object.y}) {
          EXPECT_GE(at, object.radius - 1);
          EXPECT_LE(at, kSceneSize - object.radius + 1);
        }
    }
}

TEST(DemoScene, ImagesOfDifferentSplitsSeedsAndIndicesDiffer) {
  std::set<std::string> pixels;
  std::set<int64_t> ids;
  size_t count = 0;
  DrawnScene drawn;
  for (uint64_t seed : {kSeed, kSeed + 1})
    for (SceneSplit split : kSceneSplits)
      for (int64_t i = 0; i < 600; ++i, ++count) {
        const Scene scene = sample_scene(seed, split, i);
        draw_scene(scene, drawn);
        pixels.insert(sha256(drawn.image.pixels.data(), drawn.image.pixels.size()));
        ids.insert(scene.id);
      }
  EXPECT_EQ(pixels.size(), count);
  EXPECT_EQ(ids.size(), count / 2);  // the two seeds have the same ids
}

TEST(DemoScene, CaptionsSayBothObjectsAndTheRelation) {
  for (const SceneColor& color : kSceneColors)  // or "a" would not fit
    EXPECT_EQ(std::string_view("aeiou").find(color.name.front()), std::string_view::npos) << color.name;
  const SceneContent content{{0, 0}, {1, 2}, Relation::kLeftOf};
  EXPECT_EQ(caption_of(content), "a red circle left of a blue square");
  EXPECT_EQ(caption_of({{4, 5}, {5, 1}, Relation::kAbove}), "a white cross above a green ring");
}

TEST(DemoScene, AnIndexOutOfRangeIsRefused) {
  for (int64_t index : {int64_t{-1}, kMaxSamplesPerSplit})
    EXPECT_TRUE(throws_error([=] { sample_content(1, SceneSplit::kTest, index); }, ErrorKind::kInvalidArgument,
                             {"scene: index must be 0 to 9999999; got " + std::to_string(index)}));
}

TEST(DemoTexts, MostCaptionsFollowANoteThatSaysPartsOfThem) {
  constexpr int64_t kCount = 20000;
  int64_t bare = 0, colors = 0, shapes = 0, columns = 0, rows = 0;
  std::set<std::string> orders;
  for (int64_t i = 0; i < kCount; ++i) {
    Random random(kSeed, RandomPurpose::kSynthetic, 11, static_cast<uint64_t>(i));
    const Scene scene = sample_scene(kSeed, SceneSplit::kText, i);
    const SceneContent& content = scene.content;
    const auto& [nearer, farther] = scene.objects;
    const std::string text = text_of(scene, random);
    const size_t line = text.find('\n');
    EXPECT_EQ(text.substr(line == std::string::npos ? 0 : line + 1), caption_of(content));
    if (line == std::string::npos) {
      ++bare;
      continue;
    }
    std::istringstream words(text.substr(0, line));
    std::string word, order;
    words >> word;
    EXPECT_EQ(word, "note");
    const std::string color = concat(kSceneColors[content.nearer.color].name, kSceneColors[content.farther.color].name);
    const std::string shape = concat(kSceneShapes[content.nearer.shape], kSceneShapes[content.farther.shape]);
    while (words >> word) {
      const bool is_color = word == color, is_shape = word == shape, is_column = word.starts_with('x');
      colors += is_color;
      shapes += is_shape;
      if (!is_color && !is_shape) {
        ++(is_column ? columns : rows);
        ASSERT_EQ(word.size(), 3u) << text;
        EXPECT_TRUE(is_column || word[0] == 'y') << text;
        EXPECT_NEAR(is_column ? nearer.x : nearer.y, kRaster * (word[1] - 'a'), kRaster / 2) << text;
        EXPECT_NEAR(is_column ? farther.x : farther.y, kRaster * (word[2] - 'a'), kRaster / 2) << text;
      }
      order += is_color ? 'c' : is_shape ? 's' : is_column ? 'x' : 'y';
    }
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 1u + 4 + 12 + 24 + 24);  // every choice of words in every order
  const auto share = [](int64_t part, int64_t all) { return static_cast<double>(part) / static_cast<double>(all); };
  EXPECT_NEAR(share(bare, kCount), kBareShare, 0.03);  // five standard deviations
  for (int64_t count : {colors, shapes, columns, rows}) EXPECT_NEAR(share(count, kCount - bare), kNoteWordShare, 0.035);
}

TEST(DemoTexts, TheRelationFollowsFromTheCells) {
  for (int64_t i = 0; i < 1000; ++i) {
    const Scene scene = sample_scene(kSeed, SceneSplit::kText, i);
    const auto& [nearer, farther] = scene.objects;
    const int right = cell_of(farther.x) - cell_of(nearer.x), down = cell_of(farther.y) - cell_of(nearer.y);
    ASSERT_NE(std::abs(right), std::abs(down));
    const Relation along = std::abs(right) > std::abs(down) ? (right > 0 ? Relation::kLeftOf : Relation::kRightOf)
                                                            : (down > 0 ? Relation::kAbove : Relation::kBelow);
    EXPECT_EQ(along, scene.content.relation) << i;
  }
}

TEST(DemoDraw, ShapesAreWhatTheirNamesSay) {
  struct Point {
    std::string_view shape;
    double u, v;
    bool inside;
  };
  const std::vector<Point> points = {
      {"circle", 0, 0, true},         {"circle", 0.7, 0.7, true},    {"circle", 0.8, 0.8, false},
      {"square", 0.8, 0.8, true},     {"square", 0.9, 0, false},     {"triangle", 0, -0.9, true},
      {"triangle", 0.5, -0.9, false}, {"triangle", 0.9, 0.75, true}, {"triangle", 0, 0.9, false},
      {"bar", 0.95, 0.35, true},      {"bar", 0, 0.5, false},        {"bar", 1.1, 0, false},
      {"cross", 0, 0.9, true},        {"cross", 0.9, 0, true},       {"cross", 0.5, 0.5, false},
      {"ring", 0, 0, false},          {"ring", 0.8, 0, true},        {"ring", 0.8, 0.8, false}};
  for (const Point& point : points) {
    const auto shape = static_cast<size_t>(std::ranges::find(kSceneShapes, point.shape) - kSceneShapes.begin());
    ASSERT_LT(shape, kSceneShapes.size()) << point.shape;
    EXPECT_EQ(is_in_shape(shape, point.u, point.v), point.inside) << point.shape << point.u << ' ' << point.v;
  }
}

TEST(DemoDraw, BoxesAndRunLengthsByHand) {
  SceneMask mask(size_t{kSceneSize} * kSceneSize, 0);
  EXPECT_EQ(box_of(mask).width, 0);
  EXPECT_EQ(run_lengths(mask), std::vector{kSceneSize * kSceneSize});
  mask[2 * kSceneSize + 1] = mask[3 * kSceneSize + 1] = mask[3 * kSceneSize + 2] = 1;  // (x, y): (1, 2), (1, 3), (2, 3)
  const PixelBox box = box_of(mask);
  EXPECT_EQ((std::array{box.x, box.y, box.width, box.height}), (std::array{1, 2, 2, 2}));
  EXPECT_EQ(run_lengths(mask), (std::vector{kSceneSize + 2, 2, kSceneSize - 1, 1, kSceneSize * 46 - 4}));
  mask[0] = 1;
  EXPECT_EQ(run_lengths(mask).front(), 0);  // outside comes first, also where there is nothing of it
}

TEST(DemoDraw, PixelsWellInsideHaveTheColorOfTheNearestObject) {
  DrawnScene drawn;
  for (int64_t i = 0; i < 400; ++i) {
    const Scene scene = sample_scene(kSeed, SceneSplit::kTest, i);
    draw_scene(scene, drawn);
    std::array<int, 2> seen{};
    for (int y = 1; y + 1 < kSceneSize; ++y)
      for (int x = 1; x + 1 < kSceneSize; ++x)
        for (size_t depth = 0; depth < 2; ++depth) {
          bool deep = true;
          for (int dy = -1; dy <= 1; ++dy)
            for (int dx = -1; dx <= 1; ++dx)
              deep = deep && drawn.visible[depth][static_cast<size_t>((y + dy) * kSceneSize + x + dx)];
          if (!deep) continue;
          ++seen[depth];
          for (size_t c = 0; c < 3; ++c)
            ASSERT_EQ(drawn.image.row(y)[static_cast<size_t>(3 * x) + c], scene.objects[depth].rgb[c])
                << i << ' ' << x << ' ' << y << ' ' << depth;
        }
    EXPECT_GT(seen[0], 0) << i;
    for (size_t p = 0; p < drawn.visible[0].size(); ++p) {
      ASSERT_EQ(drawn.visible[0][p], drawn.whole[0][p]);
      ASSERT_EQ(drawn.visible[1][p], drawn.whole[1][p] && !drawn.whole[0][p]);
    }
  }
}

}  // namespace
}  // namespace permafrost::testing
