#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "configs/load.h"
#include "core/device/buffer.h"
#include "core/weights/load_ranges.h"
#include "core/weights/safetensors.h"
#include "launch/training/frozen_hash.h"
#include "launch/training/model_weights.h"
#include "launch/training/plan_setup.h"
#include "models/weight_names.h"
#include "tests/launch/scratch_folder.h"
#include "tests/support/compare.h"

namespace permafrost {

inline config::Resolved quickstart(const std::vector<std::string>& more) {
  // Frozen but for the connectors and one block of the text model.
  std::vector<std::string> overrides{"precision.compute=FP32", "freeze[0].pattern=connector*",
                                     "freeze+={pattern: \"*layers.2.*\" trainable: true}",
                                     "freeze+={pattern: \"*\" trainable: false}"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return config::load_config(std::string(PERMAFROST_SOURCE) + "/configs/quickstart.textproto", overrides);
}

inline Plan plan_for(const config::Config& config, int ranks) {
  PlanChoices choices;
  choices.world = {ranks, 1, 1};
  return make_plan(plan_request(config, choices));
}

struct UnitRange {
  std::string name;
  int64_t begin = 0, end = 0;
};

/// From first to last frozen byte of each unit, in the order of the frozen space.
inline std::vector<UnitRange> units_of(const Plan& plan) {
  std::vector<UnitRange> units;
  for (const ParamPlan& param : plan.params) {
    if (param.trainable) continue;
    const std::string& name = plan.units[static_cast<size_t>(param.unit)].name;
    if (units.empty() || units.back().name != name) units.push_back({name, param.placement.offset, 0});
    units.back().end = param.placement.offset + param.placement.stored.bytes();
  }
  return units;
}

/// What `rank` of `ranks` keeps when every unit is cut into consecutive parts at multiples of 4096 bytes from its
/// beginning. `memory` is the whole frozen space, which all ranks share.
inline std::vector<FrozenRange> part_of_units(const Plan& plan, int rank, int ranks, std::byte* memory) {
  std::vector<FrozenRange> ranges;
  for (const UnitRange& unit : units_of(plan)) {
    const int64_t blocks = (unit.end - unit.begin + 4095) / 4096;
    const int64_t begin = unit.begin + blocks * rank / ranks * 4096;
    const int64_t end = std::min(unit.end, unit.begin + blocks * (rank + 1) / ranks * 4096);
    if (begin < end) ranges.push_back({begin, end, memory + begin});
  }
  return ranges;
}

/// Writes the tensors of `part`, f32, seeded, as DType `dtype`; `edit` may change them first.
inline void write_weights(const std::filesystem::path& path, const PartWeights& part, const Graph& graph, DType dtype,
                          const std::function<void(const std::string&, std::span<float>)>& edit = {},
                          std::vector<std::string> copies = {}) {
  std::vector<TensorDeclaration> declarations;
  std::vector<std::vector<float>> all;
  const auto add = [&](const std::string& name, const Shape& shape, std::vector<float> values) {
    if (edit) edit(name, values);
    declarations.push_back({name, {shape, dtype}});
    all.push_back(std::move(values));
  };
  for (size_t i = 0; i < part.params.size(); ++i) {
    const ParamInfo& info = graph.params()[static_cast<size_t>(part.params[i])];
    std::vector<float> values(static_cast<size_t>(info.shape.elements()));
    fill(Initializer::normal(0.5f), 7, info.name, DType::kF32, 0, std::as_writable_bytes(std::span(values)));
    const std::string& name = part.required[i].name;
    if (!copies.empty() && name == copies[0]) add(copies[1], info.shape, values);
    add(name, info.shape, std::move(values));
  }
  std::filesystem::remove(path);
  SafetensorsWriter writer(path.string(), declarations);
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<std::byte> bytes(all[i].size() * static_cast<size_t>(size_of(dtype)));
    convert_block(DType::kF32, all[i].data(), dtype, bytes.data(), static_cast<int64_t>(all[i].size()));
    writer.write(bytes);
  }
  writer.finish();
}

/// Of all tensors, without headers.
inline int64_t data_bytes(const std::filesystem::path& path) {
  const WeightSource source = WeightSource::open(path.string());
  int64_t bytes = 0;
  for (const SourceTensor& tensor : source.tensors()) bytes += tensor.stored.bytes;
  return bytes;
}

}  // namespace permafrost
