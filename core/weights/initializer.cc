#include "core/weights/initializer.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "core/base/sha256.h"
#include "core/device/cpu_features.h"
#include "core/weights/convert.h"
#include "core/weights/initializer_loops.h"

namespace permafrost {

namespace {
const TileLoops& loops() {
  const CpuFeatures& features = cpu_features();
  return features.avx512 ? tile_loops_avx512() : features.avx2 ? tile_loops_avx2() : kTileLoops;
}

uint64_t hash_of_name(std::string_view name) {
  return std::stoull(sha256(name.data(), name.size()).substr(0, 16), nullptr, 16);
}

/// Tile `tile` of a random parameter, as f32.
void make_tile(const Initializer& initializer, const PhiloxAddress& address, int64_t tile, float* values) {
  const auto first_block = static_cast<uint32_t>(tile * kTileBlocks);
  if (initializer.kind == Initializer::Kind::kUniform) {
    loops().uniform(address, first_block, values);
    for (int i = 0; i < kTileValues; ++i) values[i] *= initializer.scale;
    return;
  }
  loops().normal(address, first_block, values);
  for (int i = 0; i < kTileValues; ++i) values[i] *= initializer.scale;
  if (initializer.clamp > 0)
    for (int i = 0; i < kTileValues; ++i) values[i] = std::clamp(values[i], -initializer.clamp, initializer.clamp);
}

bool is_random(Initializer::Kind kind) {
  return kind == Initializer::Kind::kNormal || kind == Initializer::Kind::kUniform;
}

float constant_of(const Initializer& initializer) {
  if (initializer.kind == Initializer::Kind::kZeros) return 0;
  return initializer.kind == Initializer::Kind::kOnes ? 1.0f : initializer.scale;
}
}  // namespace

std::string to_string(const Initializer& initializer) {
  switch (initializer.kind) {
    case Initializer::Kind::kZeros:
      return "zeros";
    case Initializer::Kind::kOnes:
      return "ones";
    case Initializer::Kind::kConstant:
      return concat("constant(", initializer.scale, ")");
    case Initializer::Kind::kUniform:
      return concat("uniform(", initializer.scale, ")");
    case Initializer::Kind::kNormal:
      break;
  }
  if (initializer.clamp > 0) return concat("normal(", initializer.scale, ", clamp ", initializer.clamp, ")");
  return concat("normal(", initializer.scale, ")");
}

void fill(const Initializer& initializer, uint64_t seed, std::string_view name, DType dtype, int64_t first_element,
          std::span<std::byte> out) {
  const int64_t item = size_of(dtype);
  const int64_t elements = static_cast<int64_t>(out.size()) / item;
  PERMAFROST_CHECK(can_convert(DType::kF32, dtype), "fill: parameters are f32, bf16 or f16; got ", to_string(dtype),
                   " [param=", name, "]");
  PERMAFROST_CHECK(static_cast<int64_t>(out.size()) == elements * item, "fill: expected whole elements; got ",
                   out.size(), " bytes of ", to_string(dtype), " [param=", name, "]");
  const bool random = is_random(initializer.kind);
  PERMAFROST_CHECK(std::isfinite(initializer.scale) && initializer.clamp >= 0 && !(random && initializer.scale < 0),
                   "fill: scale must be finite and not negative; got ", to_string(initializer), " [param=", name, "]");
  constexpr int64_t kReach = (int64_t{1} << 32) / kTileBlocks * kTileValues;
  PERMAFROST_CHECK(first_element >= 0 && elements <= kReach - first_element, "fill: elements must lie in 0..", kReach,
                   "; got ", elements, " from ", first_element, " [param=", name, "]");

  alignas(64) float tile_values[kTileValues];
  PhiloxAddress address{};
  if (random) {
    const Random stream(seed, RandomPurpose::kInit, 0, hash_of_name(name));
    address = {stream.counter(), stream.key()};
  } else {
    std::fill_n(tile_values, kTileValues, constant_of(initializer));
  }
  for (int64_t done = 0; done < elements;) {
    const int64_t element = first_element + done;
    const int64_t within = element % kTileValues;
    const int64_t count = std::min<int64_t>(kTileValues - within, elements - done);
    if (random) make_tile(initializer, address, element / kTileValues, tile_values);
    convert_block(DType::kF32, tile_values + within, dtype, out.data() + done * item, count);
    done += count;
  }
}

void fill(const Initializer& initializer, uint64_t seed, std::string_view name, DType dtype, int64_t first_element,
          std::span<std::byte> out, ThreadPool& pool) {
  constexpr int64_t kBlockTiles = 256;  // of which a thread makes one after the other
  const int64_t elements = kBlockTiles * kTileValues;
  const auto bytes = static_cast<size_t>(elements * size_of(dtype));
  const auto blocks = static_cast<int64_t>((out.size() + bytes - 1) / bytes);
  pool.run(blocks, [&](int64_t block, int) {
    const size_t begin = static_cast<size_t>(block) * bytes;
    fill(initializer, seed, name, dtype, first_element + block * elements,
         out.subspan(begin, std::min(bytes, out.size() - begin)));
  });
}

}  // namespace permafrost
