#include "data/demo/scene.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "core/base/sha256.h"
#include "data/demo/captions.h"

namespace permafrost {

namespace {

// Which stream of random numbers of a sample; the content has its own, so that it can be had alone.
constexpr uint32_t kContentLayer = 0, kPlacementLayer = 1;
constexpr int kMaxTries = 100000;  // about one in fifty fits

Random stream(uint64_t seed, SceneSplit split, int64_t index, uint32_t layer) {
  PERMAFROST_CHECK(index >= 0 && index < kMaxSamplesPerSplit, "scene: index must be 0 to ", kMaxSamplesPerSplit - 1,
                   "; got ", index);
  return {seed, RandomPurpose::kSynthetic, static_cast<uint32_t>(split), static_cast<uint64_t>(index), layer};
}

ObjectKind random_kind(Random& random) {
  const size_t shape = random.next_below(kSceneShapes.size());
  return {shape, random.next_below(kSceneColors.size())};
}

double between(Random& random, double low, double high) { return low + (high - low) * random.next_double(); }
int between(Random& random, int low, int high) {
  return low + static_cast<int>(random.next_below(static_cast<uint64_t>(high - low + 1)));
}

SceneObject random_object(Random& random, const ObjectKind& kind) {
  SceneObject object{kind, 0, 0, 0, kSceneColors[kind.color].rgb};
  const double brightness = between(random, kBrightnessMin, kBrightnessMax);
  for (uint8_t& value : object.rgb) value = static_cast<uint8_t>(std::min(255, static_cast<int>(value * brightness)));
  return object;
}

bool is_inside(const SceneObject& object) {
  const double low = object.radius - kOverhang, high = kSceneSize - low;
  return object.x >= low && object.x <= high && object.y >= low && object.y <= high;
}

double random_coordinate(Random& random) {
  const auto point = static_cast<double>(static_cast<int>(kSceneSize * random.next_double() / kRaster + 0.5));
  return point * kRaster + between(random, -kRasterJitter, kRasterJitter);
}

/// Draws sizes and places until both objects are in the picture and stand in the relation.
void place_both(Random& random, Relation relation, SceneObject& nearer, SceneObject& farther) {
  const bool along_x = relation == Relation::kLeftOf || relation == Relation::kRightOf;
  const bool first = relation == Relation::kLeftOf || relation == Relation::kAbove;
  for (int i = 0; i < kMaxTries; ++i) {
    nearer.radius = between(random, kNearRadiusMin, kNearRadiusMax);
    farther.radius = between(random, kFarRadiusMin, kFarRadiusMax);
    for (SceneObject* object : {&nearer, &farther}) {
      object->x = random_coordinate(random);
      object->y = random_coordinate(random);
    }
    const double dx = farther.x - nearer.x, dy = farther.y - nearer.y;
    const double along = (first ? 1 : -1) * (along_x ? dx : dy), across = std::abs(along_x ? dy : dx);
    if (is_inside(nearer) && is_inside(farther) && along >= kDistanceMin * (nearer.radius + farther.radius) &&
        across <= kAcrossMax * along)
      return;
  }
  fail(ErrorKind::kInternal, "scene: a place for both objects within ", kMaxTries, " tries is expected; got none");
}

SceneBackground random_background(Random& random) {
  SceneBackground ground;
  ground.kind = static_cast<BackgroundKind>(random.next_below(kBackgroundNames.size()));
  const int grey = between(random, kGroundMin, kGroundMax);
  const int contrast = between(random, -kGroundContrast, kGroundContrast);
  for (size_t c = 0; c < 3; ++c) {
    ground.colors[0][c] = grey + between(random, -kGroundTint, kGroundTint);
    ground.colors[1][c] = ground.colors[0][c] + contrast;
  }
  ground.direction_x = between(random, -1.0, 1.0);
  ground.direction_y = between(random, 0.25, 1.0);  // never zero
  ground.period = between(random, kStripePeriodMin, kStripePeriodMax);
  ground.noise_seed = random.next_u64();
  return ground;
}

/// Whether sample `index` may, or must, have a held-out caption.
bool fits_split(SceneSplit split, int64_t index, const SceneContent& content) {
  switch (split) {
    case SceneSplit::kTrain:
      return !is_held_out(caption_of(content));
    case SceneSplit::kVal:
    case SceneSplit::kTest:
      return is_held_out(caption_of(content)) == (index % kHeldOutEvery == kHeldOutEvery - 1);
    case SceneSplit::kPretrain:  // gets no captions
    case SceneSplit::kText:      // gets no images
      return true;
  }
  return true;
}

}  // namespace

Relation inverse(Relation relation) {
  switch (relation) {
    case Relation::kLeftOf:
      return Relation::kRightOf;
    case Relation::kRightOf:
      return Relation::kLeftOf;
    case Relation::kAbove:
      return Relation::kBelow;
    case Relation::kBelow:
      return Relation::kAbove;
  }
  return relation;
}

std::string_view to_string(SceneSplit split) {
  switch (split) {
    case SceneSplit::kPretrain:
      return "pretrain";
    case SceneSplit::kText:
      return "text";
    case SceneSplit::kTrain:
      return "train";
    case SceneSplit::kVal:
      return "val";
    case SceneSplit::kTest:
      return "test";
  }
  return "unknown";
}

int64_t scene_id(SceneSplit split, int64_t index) { return static_cast<int64_t>(split) * kMaxSamplesPerSplit + index; }

bool is_held_out(std::string_view caption) {
  Sha256 hash;
  hash.update(caption.data(), caption.size());
  return std::to_integer<int>(hash.finish_and_restart().front()) < kHeldOutBelow;
}

SceneContent sample_content(uint64_t seed, SceneSplit split, int64_t index) {
  Random random = stream(seed, split, index, kContentLayer);
  SceneContent content;
  do {
    content.nearer = random_kind(random);
    content.farther = random_kind(random);
    content.relation = static_cast<Relation>(random.next_below(kRelationNames.size()));
  } while (content.nearer == content.farther || !fits_split(split, index, content));
  return content;
}

Scene sample_scene(uint64_t seed, SceneSplit split, int64_t index) {
  Scene scene{scene_id(split, index), split, sample_content(seed, split, index), {}, {}};
  Random random = stream(seed, split, index, kPlacementLayer);
  scene.background = random_background(random);
  scene.objects = {random_object(random, scene.content.nearer), random_object(random, scene.content.farther)};
  place_both(random, scene.content.relation, scene.objects[0], scene.objects[1]);
  return scene;
}

int cell_of(double coordinate) {
  return std::clamp(static_cast<int>(coordinate / kRaster + 0.5), 0, kCellsPerSide - 1);
}

}  // namespace permafrost
