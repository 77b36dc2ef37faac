#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace permafrost {

// Scenes of two coloured shapes: what they may consist of, and how one is drawn at random. The nearer object is larger
// and may hide a part of the farther one; a caption says where the nearer one is, seen from the farther one.

inline constexpr std::array<std::string_view, 6> kSceneShapes = {"circle", "square", "triangle",
                                                                 "bar",    "cross",  "ring"};

struct SceneColor {
  std::string_view name;
  std::array<uint8_t, 3> rgb;
};
inline constexpr std::array<SceneColor, 6> kSceneColors = {{{"red", {220, 40, 40}},
                                                            {"green", {40, 170, 60}},
                                                            {"blue", {50, 80, 230}},
                                                            {"yellow", {235, 210, 50}},
                                                            {"purple", {165, 60, 200}},
                                                            {"white", {240, 240, 240}}}};

enum class Relation : uint8_t { kLeftOf, kRightOf, kAbove, kBelow };
inline constexpr std::array<std::string_view, 4> kRelationNames = {"left of", "right of", "above", "below"};
/// Of the farther object to the nearer one.
Relation inverse(Relation relation);

enum class BackgroundKind : uint8_t { kPlain, kGradient, kNoise, kStripes };
inline constexpr std::array<std::string_view, 4> kBackgroundNames = {"plain", "gradient", "noise", "stripes"};

// Lengths in pixels; y points down.
inline constexpr int kSceneSize = 48;                              ///< width and height of an image
inline constexpr double kNearRadiusMin = 10, kNearRadiusMax = 12;  ///< half of the extent of the nearer object
inline constexpr double kFarRadiusMin = 6.5, kFarRadiusMax = 7.5;  ///< and of the farther one
/// Centres are near the points of a raster, so that a small vision model learns shapes in a minute.
inline constexpr double kRaster = 8, kRasterJitter = 0;  ///< and up to so far away, along each axis
inline constexpr double kOverhang = 1;                   ///< of an object beyond the border, at most
inline constexpr double kDistanceMin = 0.9;              ///< along the relation's axis, in sums of the radii
inline constexpr double kAcrossMax = 0.5;                ///< across it, in distances along it
inline constexpr double kBrightnessMin = 0.85, kBrightnessMax = 1.05;  ///< of an object, times its colour
inline constexpr int kGroundMin = 30, kGroundMax = 120;                ///< grey level of a background
inline constexpr int kGroundTint = 15;                                 ///< each channel, up and down
inline constexpr int kGroundContrast = 40;                             ///< between its two colours, up and down
inline constexpr int kNoiseAmplitude = 12;                             ///< of a channel of a pixel, up and down
inline constexpr double kStripePeriodMin = 6, kStripePeriodMax = 14;
inline constexpr int kCellsPerSide = 6;  ///< coarse positions: which of so many raster points, 0 being the border
/// Captions whose SHA-256 begins with a byte below this never occur in images of the split `train`: a quarter of all.
inline constexpr int kHeldOutBelow = 64;
/// In `val` and `test` every fourth sample has a held-out caption, and the others have none.
inline constexpr int64_t kHeldOutEvery = 4;

/// What images and texts are for. The numbers are part of ids and of the address of random numbers.
enum class SceneSplit : uint32_t { kPretrain = 1, kText = 2, kTrain = 3, kVal = 4, kTest = 5 };
inline constexpr std::array<SceneSplit, 5> kSceneSplits = {SceneSplit::kPretrain, SceneSplit::kText, SceneSplit::kTrain,
                                                           SceneSplit::kVal, SceneSplit::kTest};
std::string_view to_string(SceneSplit split);
inline constexpr int64_t kMaxSamplesPerSplit = 10'000'000;
/// split * kMaxSamplesPerSplit + index: unique over the splits.
int64_t scene_id(SceneSplit split, int64_t index);

/// What a caption says of an object: indices into the tables above.
struct ObjectKind {
  size_t shape = 0, color = 0;
  bool operator==(const ObjectKind&) const = default;
};

/// What a caption says. The two kinds differ in shape or colour.
struct SceneContent {
  ObjectKind nearer, farther;
  Relation relation = Relation::kLeftOf;  ///< of the nearer object to the farther one
};

struct SceneObject {
  ObjectKind kind;
  double x = 0, y = 0, radius = 0;  ///< centre of its extent and half of that
  std::array<uint8_t, 3> rgb{};
};

struct SceneBackground {
  BackgroundKind kind = BackgroundKind::kPlain;
  std::array<std::array<int, 3>, 2> colors{};  ///< what leaves 0..255 is clipped when drawn
  double direction_x = 1, direction_y = 0;     ///< of gradient and stripes; not normalised
  double period = 1;                           ///< of stripes
  uint64_t noise_seed = 0;
};

struct Scene {
  int64_t id = 0;
  SceneSplit split = SceneSplit::kTrain;
  SceneContent content;
  std::array<SceneObject, 2> objects;  ///< nearer, farther
  SceneBackground background;
};

/// Whether a caption belongs to the share that is held out of `train`. A pure function of its text, so that everyone
/// can tell: sha256(caption)[0] < kHeldOutBelow.
bool is_held_out(std::string_view caption);

/// What sample `index` of a split shows, without where.
SceneContent sample_content(uint64_t seed, SceneSplit split, int64_t index);
/// The whole scene; its content is that of sample_content. A pure function of (seed, split, index).
Scene sample_scene(uint64_t seed, SceneSplit split, int64_t index);

/// Number of the raster point that is nearest to a coordinate, 0 to kCellsPerSide - 1.
int cell_of(double coordinate);

}  // namespace permafrost
