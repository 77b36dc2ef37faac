#include "models/weight_map_npz.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/base/check.h"
#include "core/weights/problems.h"

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

class JaxVitMapper {
 public:
  explicit JaxVitMapper(const WeightSource& source) : source_(source) {}

  WeightMap map() {
    for (const Rule& rule : outer_rules()) apply(rule, "", "", true);
    for (const Rule& rule : head_rules()) apply(rule, "", "", source_.find("head/kernel") || source_.find("head/bias"));
    const int blocks = count_blocks();
    for (int block = 0; block < std::max(blocks, 1); ++block)
      for (const Rule& rule : block_rules())
        apply(rule, concat("Transformer/encoderblock_", block, "/"), concat("blocks.", block, "."), true);
    for (const SourceTensor& tensor : source_.tensors()) {
      const std::string& name = tensor.stored.name;
      if (used_.contains(name)) continue;
      if (name.starts_with("Transformer/"))
        problems_.add("unknown: '", name, "' ", tensor.stored.shape, ", so this is another architecture");
      else
        map_.dropped.push_back(name + " (not a part of the model)");
    }
    problems_.throw_if_any(source_.path() + ": expected weights of kind timm_vit_npz");
    if (map_.tensors.empty())
      fail(ErrorKind::kWeights, source_.path(), ": expected weights of kind timm_vit_npz; got none of them among ",
           source_.tensors().size(), " tensors");
    std::ranges::sort(map_.tensors, {},
                      [](const RewrittenTensor& tensor) { return tensor.parts[0].tensor->stored.file_offset; });
    return std::move(map_);
  }

 private:
  int count_blocks() const {
    int blocks = 0;
    for (int block = 0; block < 10'000; ++block) {
      const std::string prefix = concat("Transformer/encoderblock_", block, "/");
      if (std::ranges::any_of(source_.tensors(),
                              [&](const SourceTensor& t) { return t.stored.name.starts_with(prefix); }))
        blocks = block + 1;
      else if (block > blocks + 64)
        break;
    }
    return blocks;
  }

  void apply(const Rule& rule, const std::string& from, const std::string& to, bool required) {
    RewrittenTensor tensor{to + rule.name, {}, {}};
    const Axes axes = axes_of(rule.turn);
    Shape shape;
    for (const char* array : rule.arrays) {
      const SourceTensor* found = source_.find(from + array);
      if (!found) {
        if (required) map_.missing.push_back(from + array);
        continue;
      }
      used_.insert(found->stored.name);
      if (axes.rank != 0 && found->stored.shape.rank() != axes.rank) {
        problems_.add("misshapen: '", found->stored.name, "' must have ", axes.rank, " axes; got ",
                      found->stored.shape);
        continue;
      }
      const Shape part = turned(found->stored.shape, rule.turn);
      if (!tensor.parts.empty() && part != shape)
        problems_.add("misshapen: '", found->stored.name, "' must be like its neighbours; got ", found->stored.shape);
      shape = part;
      tensor.parts.push_back({found, axes.order});
      map_.renamed.emplace_back(found->stored.name, tensor.name);
    }
    if (tensor.parts.size() != rule.arrays.size()) return;
    std::vector<int64_t> extents(shape.dims().begin(), shape.dims().end());
    if (rule.arrays.size() > 1) extents[0] *= static_cast<int64_t>(rule.arrays.size());
    tensor.shape = Shape(std::span<const int64_t>(extents));
    if (!to.empty()) require_like_first(rule.name, tensor);
    map_.tensors.push_back(std::move(tensor));
  }

  void require_like_first(const std::string& rest, const RewrittenTensor& tensor) {
    const auto [first, fresh] = shapes_.emplace(rest, tensor.shape);
    if (!fresh && first->second != tensor.shape)
      problems_.add("misshapen: '", tensor.name, "' must be ", first->second, ", as in the first block; got ",
                    tensor.shape);
  }

  const WeightSource& source_;
  std::set<std::string> used_;
  std::map<std::string, Shape> shapes_;
  WeightMap map_;
  ProblemList problems_;
};

}  // namespace

WeightMap map_jax_vit(const WeightSource& source) { return JaxVitMapper(source).map(); }

}  // namespace permafrost
