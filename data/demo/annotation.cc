#include "data/demo/annotation.h"

#include <algorithm>
#include <string_view>

namespace permafrost {

namespace {

int64_t area_of(const SceneMask& mask) { return std::ranges::count(mask, uint8_t{1}); }

// Written as text at once: a tree of each would take as long as the picture. No string in it needs an escape.

template <typename Values>
std::string list_of(const Values& values) {
  std::string text = "[";
  for (const auto& value : values) {
    if (text.size() > 1) text += ',';
    text += std::to_string(value);
  }
  return text + "]";
}

std::string in_quotes(std::string_view text) { return '"' + std::string(text) + '"'; }

/// To a hundredth, always with two digits behind the point.
std::string hundredths(double value) {
  const auto all = static_cast<int64_t>(value * 100 + 0.5);
  const std::string digits = std::to_string(all % 100);
  return std::to_string(all / 100) + (digits.size() < 2 ? ".0" : ".") + digits;
}

std::string describe_object(const Scene& scene, const DrawnScene& drawn, size_t depth) {
  const SceneObject& object = scene.objects[depth];
  const PixelBox box = box_of(drawn.whole[depth]);
  std::string text = "{\"depth\":" + std::to_string(depth);
  text += ",\"shape\":" + in_quotes(kSceneShapes[object.kind.shape]);
  text += ",\"color\":" + in_quotes(kSceneColors[object.kind.color].name);
  text += ",\"rgb\":" + list_of(object.rgb);
  text += ",\"center\":[" + hundredths(object.x) + "," + hundredths(object.y) + "]";
  text += ",\"radius\":" + hundredths(object.radius);
  text += ",\"box\":" + list_of(std::array{box.x, box.y, box.width, box.height});
  text += ",\"area\":" + std::to_string(area_of(drawn.whole[depth]));
  text += ",\"visible_area\":" + std::to_string(area_of(drawn.visible[depth]));
  text += ",\"mask\":{\"size\":" + list_of(std::array{kSceneSize, kSceneSize});
  text += ",\"counts\":" + list_of(run_lengths(drawn.visible[depth])) + "}}";
  return text;
}

}  // namespace

const std::array<SceneLabelHead, kSceneLabels>& scene_label_heads() {
  constexpr int64_t kShapes = kSceneShapes.size(), kColors = kSceneColors.size();
  static const std::array<SceneLabelHead, kSceneLabels> heads = {{{"nearer_shape", kShapes},
                                                                  {"nearer_colour", kColors},
                                                                  {"nearer_column", kCellsPerSide},
                                                                  {"nearer_row", kCellsPerSide},
                                                                  {"farther_shape", kShapes},
                                                                  {"farther_colour", kColors},
                                                                  {"farther_column", kCellsPerSide},
                                                                  {"farther_row", kCellsPerSide}}};
  return heads;
}

std::array<int32_t, kSceneLabels> labels_of(const Scene& scene) {
  std::array<int32_t, kSceneLabels> labels{};
  auto next = labels.begin();
  for (const SceneObject& object : scene.objects) {
    *next++ = static_cast<int32_t>(object.kind.shape);
    *next++ = static_cast<int32_t>(object.kind.color);
    *next++ = cell_of(object.x);
    *next++ = cell_of(object.y);
  }
  return labels;
}

std::string annotation_of(const Scene& scene, const DrawnScene& drawn, const std::vector<SceneQuestion>& questions) {
  const std::string caption = caption_of(scene.content);
  std::string text = "{\"id\":" + std::to_string(scene.id);
  text += ",\"split\":" + in_quotes(to_string(scene.split));
  text += ",\"caption\":" + in_quotes(caption);
  text += std::string(",\"held_out\":") + (is_held_out(caption) ? "true" : "false");
  text += ",\"relation\":" + in_quotes(kRelationNames[static_cast<size_t>(scene.content.relation)]);
  text += ",\"background\":" + in_quotes(kBackgroundNames[static_cast<size_t>(scene.background.kind)]);
  text += ",\"objects\":[" + describe_object(scene, drawn, 0) + "," + describe_object(scene, drawn, 1) + "]";
  text += ",\"questions\":[";
  for (const SceneQuestion& entry : questions) {
    if (text.back() != '[') text += ',';
    text += "{\"question\":" + in_quotes(entry.question) + ",\"answer\":" + in_quotes(entry.answer) + "}";
  }
  return text + "],\"labels\":" + list_of(labels_of(scene)) + "}";
}

}  // namespace permafrost
