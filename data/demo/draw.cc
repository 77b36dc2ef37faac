#include "data/demo/draw.h"

#include <algorithm>
#include <cmath>

#include "core/base/philox.h"

namespace permafrost {

namespace {

constexpr int kSamples = kSamplesPerSide * kSamplesPerSide;
constexpr size_t kPixels = size_t{kSceneSize} * kSceneSize;

uint8_t clipped(double value) { return static_cast<uint8_t>(std::clamp(value + 0.5, 0.0, 255.0)); }

/// How far a point is on the way from the first colour of a background to the second, 0 to 1.
double ground_mix(const SceneBackground& ground, double x, double y) {
  if (ground.kind != BackgroundKind::kGradient && ground.kind != BackgroundKind::kStripes) return 0;
  const double reach = std::abs(ground.direction_x) + std::abs(ground.direction_y);
  const double along = (x * ground.direction_x + y * ground.direction_y) / reach;  // |along| <= kSceneSize
  if (ground.kind == BackgroundKind::kGradient)
    return (along - std::min(0.0, ground.direction_x) * kSceneSize / reach) / kSceneSize;
  const double phase = along / ground.period;
  return phase - std::floor(phase) < 0.5 ? 0 : 1;
}

void draw_background(const SceneBackground& ground, Image& image) {
  Random noise(ground.noise_seed, RandomPurpose::kSynthetic);
  for (int y = 0; y < kSceneSize; ++y) {
    uint8_t* pixel = image.row(y);
    for (int x = 0; x < kSceneSize; ++x, pixel += 3) {
      const double mix = ground_mix(ground, x + 0.5, y + 0.5);
      uint32_t bits = ground.kind == BackgroundKind::kNoise ? noise.next_u32() : 0;
      for (size_t c = 0; c < 3; ++c, bits >>= 8) {
        double value = ground.colors[0][c] + mix * (ground.colors[1][c] - ground.colors[0][c]);
        if (ground.kind == BackgroundKind::kNoise)
          value += static_cast<int>(bits & 255) * (2 * kNoiseAmplitude + 1) / 256 - kNoiseAmplitude;
        pixel[c] = clipped(value);
      }
    }
  }
}

/// Points of a pixel that are in an object.
int covered(const SceneObject& object, double inverse_radius, int x, int y) {
  int count = 0;
  for (int i = 0; i < kSamplesPerSide; ++i) {
    const double v = (y + (i + 0.5) / kSamplesPerSide - object.y) * inverse_radius;
    for (int j = 0; j < kSamplesPerSide; ++j)
      count += is_in_shape(object.kind.shape, (x + (j + 0.5) / kSamplesPerSide - object.x) * inverse_radius, v);
  }
  return count;
}

void draw_object(const SceneObject& object, Image& image, SceneMask& mask) {
  mask.assign(kPixels, 0);
  const double inverse_radius = 1 / object.radius;
  const auto first = [&](double at) { return std::max(0, static_cast<int>(at - object.radius) - 1); };
  const auto last = [&](double at) { return std::min(kSceneSize, static_cast<int>(at + object.radius) + 2); };
  for (int y = first(object.y); y < last(object.y); ++y)
    for (int x = first(object.x); x < last(object.x); ++x) {
      const int count = covered(object, inverse_radius, x, y);
      if (count == 0) continue;
      uint8_t* pixel = image.row(y) + 3 * x;
      for (size_t c = 0; c < 3; ++c)
        pixel[c] =
            static_cast<uint8_t>((pixel[c] * (kSamples - count) + object.rgb[c] * count + kSamples / 2) / kSamples);
      mask[static_cast<size_t>(y * kSceneSize + x)] = 2 * count >= kSamples;
    }
}

}  // namespace

bool is_in_shape(size_t shape, double u, double v) {
  const double across = std::abs(u), down = std::abs(v);
  switch (shape) {
    case 0:  // circle
      return u * u + v * v <= 1;
    case 1:  // square
      return across <= 0.85 && down <= 0.85;
    case 2:  // triangle, tip up
      return v <= 0.8 && across <= (v + 1) / 1.8;
    case 3:  // bar
      return across <= 1 && down <= 0.4;
    case 4:  // cross
      return (across <= 0.33 && down <= 0.98) || (down <= 0.33 && across <= 0.98);
    default:  // ring
      return u * u + v * v <= 1 && u * u + v * v >= 0.55 * 0.55;
  }
}

void draw_scene(const Scene& scene, DrawnScene& drawn) {
  drawn.image.set_up(kSceneSize, kSceneSize);
  draw_background(scene.background, drawn.image);
  for (size_t i : {1, 0}) draw_object(scene.objects[i], drawn.image, drawn.whole[i]);  // the nearer one last
  drawn.visible = drawn.whole;
  for (size_t i = 0; i < kPixels; ++i)
    if (drawn.whole[0][i]) drawn.visible[1][i] = 0;
}

PixelBox box_of(const SceneMask& mask) {
  int left = kSceneSize, top = kSceneSize, right = 0, bottom = 0;
  for (int y = 0; y < kSceneSize; ++y)
    for (int x = 0; x < kSceneSize; ++x)
      if (mask[static_cast<size_t>(y * kSceneSize + x)]) {
        left = std::min(left, x);
        right = std::max(right, x + 1);
        top = std::min(top, y);
        bottom = std::max(bottom, y + 1);
      }
  return right == 0 ? PixelBox{} : PixelBox{left, top, right - left, bottom - top};
}

std::vector<int> run_lengths(const SceneMask& mask) {
  std::vector<int> runs = {0};
  uint8_t inside = 0;
  for (int x = 0; x < kSceneSize; ++x)
    for (int y = 0; y < kSceneSize; ++y) {
      const uint8_t here = mask[static_cast<size_t>(y * kSceneSize + x)];
      if (here != inside) {
        runs.push_back(0);
        inside = here;
      }
      ++runs.back();
    }
  return runs;
}

}  // namespace permafrost
