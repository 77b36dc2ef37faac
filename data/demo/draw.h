#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "data/demo/scene.h"
#include "data/images/image.h"

namespace permafrost {

/// Pixels of one object, [kSceneSize, kSceneSize], 1 where at least half of a pixel belongs to it.
using SceneMask = std::vector<uint8_t>;

struct DrawnScene {
  Image image;                              ///< RGB, kSceneSize x kSceneSize
  std::array<SceneMask, 2> whole, visible;  ///< per object: without and with what the nearer one hides
};

/// Draws a scene, antialiased over kSamplesPerSide^2 points of each pixel. Only additions, multiplications, divisions
/// and comparisons of doubles, which give the same bits on every machine. Memory of `drawn` is kept when it is used
/// again.
void draw_scene(const Scene& scene, DrawnScene& drawn);

inline constexpr int kSamplesPerSide = 3;

/// Whether a point is in a shape whose centre is the origin and whose radius is 1; v points down.
bool is_in_shape(size_t shape, double u, double v);

/// Smallest upright box around a mask; all 0 when it is empty. Pixels: [x, x + width) x [y, y + height).
struct PixelBox {
  int x = 0, y = 0, width = 0, height = 0;
};
PixelBox box_of(const SceneMask& mask);

/// COCO's uncompressed run lengths: columns one after another, pixels outside and inside in turn, outside first.
std::vector<int> run_lengths(const SceneMask& mask);

}  // namespace permafrost
