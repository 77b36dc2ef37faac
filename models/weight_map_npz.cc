#include "models/weight_map_npz.h"

#include <algorithm>
#include <set>

#include "core/base/check.h"
#include "models/weight_mapper.h"

namespace permafrost {

namespace {

/// How the axes of an array become those of a tensor.
enum class Turn {
  kNone,
  kConvolution,  ///< [height, width, in, out] -> [out, in, height, width]
  kDense,        ///< [in, out] -> [out, in]
  kIntoHeads,    ///< [in, heads, size] -> [heads * size, in]
  kOutOfHeads,   ///< [heads, size, out] -> [out, heads * size]
  kHeadBias,     ///< [heads, size] -> [heads * size]
};

struct Rule {
  const char* name;                 ///< timm's
  std::vector<const char*> arrays;  ///< JAX's, stacked
  Turn turn = Turn::kNone;
};

const std::vector<Rule>& outer_rules() {
  static const std::vector<Rule> rules{{"cls_token", {"cls"}},
                                       {"pos_embed", {"Transformer/posembed_input/pos_embedding"}},
                                       {"patch_embed.proj.weight", {"embedding/kernel"}, Turn::kConvolution},
                                       {"patch_embed.proj.bias", {"embedding/bias"}},
                                       {"norm.weight", {"Transformer/encoder_norm/scale"}},
                                       {"norm.bias", {"Transformer/encoder_norm/bias"}}};
  return rules;
}

const std::vector<Rule>& head_rules() {
  static const std::vector<Rule> rules{{"head.weight", {"head/kernel"}, Turn::kDense}, {"head.bias", {"head/bias"}}};
  return rules;
}

const std::vector<Rule>& block_rules() {
  static const std::vector<Rule> rules{
      {"norm1.weight", {"LayerNorm_0/scale"}},
      {"norm1.bias", {"LayerNorm_0/bias"}},
      {"attn.qkv.weight",
       {"MultiHeadDotProductAttention_1/query/kernel", "MultiHeadDotProductAttention_1/key/kernel",
        "MultiHeadDotProductAttention_1/value/kernel"},
       Turn::kIntoHeads},
      {"attn.qkv.bias",
       {"MultiHeadDotProductAttention_1/query/bias", "MultiHeadDotProductAttention_1/key/bias",
        "MultiHeadDotProductAttention_1/value/bias"},
       Turn::kHeadBias},
      {"attn.proj.weight", {"MultiHeadDotProductAttention_1/out/kernel"}, Turn::kOutOfHeads},
      {"attn.proj.bias", {"MultiHeadDotProductAttention_1/out/bias"}},
      {"norm2.weight", {"LayerNorm_2/scale"}},
      {"norm2.bias", {"LayerNorm_2/bias"}},
      {"mlp.fc1.weight", {"MlpBlock_3/Dense_0/kernel"}, Turn::kDense},
      {"mlp.fc1.bias", {"MlpBlock_3/Dense_0/bias"}},
      {"mlp.fc2.weight", {"MlpBlock_3/Dense_1/kernel"}, Turn::kDense},
      {"mlp.fc2.bias", {"MlpBlock_3/Dense_1/bias"}}};
  return rules;
}

/// Order of axes; empty where nothing changes. The rank an array must have, 0 for any.
struct Axes {
  std::vector<int> order;
  int rank;
};
Axes axes_of(Turn turn) {
  switch (turn) {
    case Turn::kNone:
      return {{}, 0};
    case Turn::kConvolution:
      return {{3, 2, 0, 1}, 4};
    case Turn::kDense:
      return {{1, 0}, 2};
    case Turn::kIntoHeads:
      return {{1, 2, 0}, 3};
    case Turn::kOutOfHeads:
      return {{2, 0, 1}, 3};
    case Turn::kHeadBias:
      return {{}, 2};
  }
  return {{}, 0};
}

/// Of one array after its turn.
Shape turned(const Shape& shape, Turn turn) {
  switch (turn) {
    case Turn::kNone:
      return shape;
    case Turn::kConvolution:
      return {shape[3], shape[2], shape[0], shape[1]};
    case Turn::kDense:
      return {shape[1], shape[0]};
    case Turn::kIntoHeads:
      return {shape[1] * shape[2], shape[0]};
    case Turn::kOutOfHeads:
      return {shape[2], shape[0] * shape[1]};
    case Turn::kHeadBias:
      return {shape[0] * shape[1]};
  }
  return shape;
}

constexpr std::string_view kBlocks = "Transformer/encoderblock_";

class JaxVitMapper {
 public:
  explicit JaxVitMapper(const WeightSource& source) : source_(source), mapper_(source) {}

  WeightMap map() {
    for (const Rule& rule : outer_rules()) apply(rule, "", "", true);
    for (const Rule& rule : head_rules()) apply(rule, "", "", source_.find("head/kernel") || source_.find("head/bias"));
    int blocks = 1;
    for (const SourceTensor& tensor : source_.tensors())
      if (const auto at = in_block(tensor.stored.name, kBlocks, '/')) {
        blocks = std::max(blocks, at->block + 1);
        mapper_.require_alike(tensor, at->rest);
      }
    for (int block = 0; block < blocks; ++block)
      for (const Rule& rule : block_rules())
        apply(rule, concat(kBlocks, block, "/"), concat("blocks.", block, "."), true);
    for (const SourceTensor& tensor : source_.tensors()) {
      if (used_.contains(&tensor)) continue;
      if (tensor.stored.name.starts_with("Transformer/"))
        mapper_.add_unknown(tensor);
      else
        mapper_.drop(tensor, "not a part of the model");
    }
    WeightMap map = mapper_.finish(to_string(WeightKind::kTimmVitNpz));
    std::ranges::sort(map.tensors, {},
                      [](const RewrittenTensor& tensor) { return tensor.parts[0].tensor->stored.file_offset; });
    return map;
  }

 private:
  void apply(const Rule& rule, const std::string& from, const std::string& to, bool required) {
    std::vector<RewritePart> parts;
    const Axes axes = axes_of(rule.turn);
    Shape shape;
    for (const char* array : rule.arrays) {
      const SourceTensor* found = source_.find(from + array);
      if (!found) {
        if (required) mapper_.miss(from + array);
        continue;
      }
      used_.insert(found);
      if (!is_sound(found->stored, axes.rank)) continue;
      const Shape part = turned(found->stored.shape, rule.turn);
      if (!parts.empty() && part != shape)
        mapper_.problems().add("misshapen: '", found->stored.name, "' must be like its neighbours; got ",
                               found->stored.shape);
      shape = part;
      parts.push_back({found, axes.order});
    }
    if (parts.size() != rule.arrays.size()) return;
    std::vector<int64_t> extents(shape.dims().begin(), shape.dims().end());
    if (rule.arrays.size() > 1) extents[0] *= std::ssize(rule.arrays);
    mapper_.keep(to + rule.name, Shape(std::span<const int64_t>(extents)), std::move(parts));
  }

  /// Can be turned: products of extents cannot overflow where there are elements.
  bool is_sound(const StoredTensor& stored, int rank) {
    if (rank != 0 && stored.shape.rank() != rank)
      mapper_.problems().add("misshapen: '", stored.name, "' must have ", rank, " axes; got ", stored.shape);
    else if (stored.bytes == 0)
      mapper_.problems().add("misshapen: '", stored.name, "' must not be empty; got ", stored.shape);
    else
      return true;
    return false;
  }

  const WeightSource& source_;
  std::set<const SourceTensor*> used_;
  WeightMapper mapper_;
};

}  // namespace

WeightMap map_jax_vit(const WeightSource& source) { return JaxVitMapper(source).map(); }

}  // namespace permafrost
