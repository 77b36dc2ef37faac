#include "data/demo/annotation.h"

#include <algorithm>

#include "core/base/json.h"

namespace permafrost {

namespace {

int64_t area_of(const SceneMask& mask) { return std::ranges::count(mask, uint8_t{1}); }

OrderedJson describe_object(const Scene& scene, const DrawnScene& drawn, size_t depth) {
  const SceneObject& object = scene.objects[depth];
  const PixelBox box = box_of(drawn.whole[depth]);
  return {{"depth", depth},
          {"shape", kSceneShapes[object.kind.shape]},
          {"color", kSceneColors[object.kind.color].name},
          {"rgb", object.rgb},
          {"center", {object.x, object.y}},
          {"radius", object.radius},
          {"box", {box.x, box.y, box.width, box.height}},
          {"area", area_of(drawn.whole[depth])},
          {"visible_area", area_of(drawn.visible[depth])},
          {"mask", {{"size", {kSceneSize, kSceneSize}}, {"counts", run_lengths(drawn.visible[depth])}}}};
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
  OrderedJson asked = OrderedJson::array();
  for (const SceneQuestion& entry : questions)
    asked.push_back({{"question", entry.question}, {"answer", entry.answer}});
  const std::string caption = caption_of(scene.content);
  const OrderedJson all = {
      {"id", scene.id},
      {"split", to_string(scene.split)},
      {"caption", caption},
      {"held_out", is_held_out(caption)},
      {"relation", kRelationNames[static_cast<size_t>(scene.content.relation)]},
      {"background", kBackgroundNames[static_cast<size_t>(scene.background.kind)]},
      {"objects", OrderedJson::array({describe_object(scene, drawn, 0), describe_object(scene, drawn, 1)})},
      {"questions", asked},
      {"labels", labels_of(scene)}};
  return json_text(all);
}

}  // namespace permafrost
