#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/demo/captions.h"
#include "data/demo/draw.h"
#include "data/demo/scene.h"

namespace permafrost {

/// What a vision classifier is taught about an image; captions and relations are not among it.
struct SceneLabelHead {
  std::string name;
  int64_t classes = 0;
};
/// Shape, colour, column and row of the nearer object, then of the farther one.
inline constexpr size_t kSceneLabels = 8;
const std::array<SceneLabelHead, kSceneLabels>& scene_label_heads();
/// One class per head, each in 0 .. classes - 1.
std::array<int32_t, kSceneLabels> labels_of(const Scene& scene);

/// One line of JSON (without its line end) with all that is known of an image:
///   id, split, caption, held_out, relation, background
///   objects: nearest first; each with depth (0: nearest), shape, color, rgb, center [x, y] and radius (pixels, to a
///   hundredth),
///     box [x, y, width, height] and area (pixels) as if nothing hid it, visible_area, and mask: what is visible, in
///     COCO's uncompressed run lengths {size: [height, width], counts}
///   questions: [{question, answer}]
///   labels: see labels_of
std::string annotation_of(const Scene& scene, const DrawnScene& drawn, const std::vector<SceneQuestion>& questions);

}  // namespace permafrost
