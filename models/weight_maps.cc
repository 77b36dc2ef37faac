#include "models/weight_maps.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/weights/match.h"
#include "models/weight_map_npz.h"
#include "models/weight_mapper.h"

namespace permafrost {

namespace {

constexpr std::pair<std::string_view, WeightKind> kKinds[] = {{"raw", WeightKind::kRaw},
                                                              {"opt", WeightKind::kOpt},
                                                              {"timm_vit", WeightKind::kTimmVit},
                                                              {"timm_vit_npz", WeightKind::kTimmVitNpz},
                                                              {"epalm", WeightKind::kEpalm}};

/// A transformer's names: those of its blocks, and those beside them.
struct Architecture {
  std::string our_prefix;                                  ///< "text."
  std::vector<std::string> loose_prefixes;                 ///< taken away, each once, in this order, where they are
  std::string target_prefix;                               ///< put in front of every name
  std::string blocks;                                      ///< "layers."
  std::vector<std::string> of_block;                       ///< all required
  std::vector<std::string> required;                       ///< beside the blocks
  std::vector<std::pair<std::string, std::string>> pairs;  ///< both or none of each
  std::string tied_head;                                   ///< repeats embed_tokens.weight; empty: there is none
  std::vector<std::string> changes_model;  ///< patterns of tensors without which the model computes something else
};

std::vector<std::string> with_bias(std::initializer_list<const char*> modules) {
  std::vector<std::string> names;
  for (const char* module : modules)
    for (const char* part : {".weight", ".bias"}) names.push_back(std::string(module) + part);
  return names;
}

Architecture opt_architecture() {
  return {"text.",
          {"module.", "model.", "model.", "decoder."},
          "model.decoder.",
          "layers.",
          with_bias({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                     "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"}),
          {"embed_tokens.weight", "embed_positions.weight"},
          {{"final_layer_norm.weight", "final_layer_norm.bias"}, {"project_in.weight", "project_out.weight"}},
          "lm_head.weight",
          {"layernorm_embedding.*", "embed_layer_norm.*"}};
}

Architecture vit_architecture() {
  return {"vision.",
          {"module.", "model."},
          "",
          "blocks.",
          with_bias({"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}),
          {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"},
          {{"head.weight", "head.bias"}},
          "",
          {"dist_token", "reg_token", "norm_pre.*", "fc_norm.*", "time_embed", "patch_embed.norm.*"}};
}

bool matches_any(const std::string& name, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns, [&](const std::string& pattern) { return matches_pattern(name, pattern); });
}

class TransformerMapper {
 public:
  TransformerMapper(const WeightSource& source, Architecture architecture)
      : source_(source), architecture_(std::move(architecture)), mapper_(source) {}

  WeightMap map(std::string_view kind) {
    const bool only_ours = std::ranges::any_of(source_.tensors(), [&](const SourceTensor& tensor) {
      return tensor.stored.name.starts_with(architecture_.our_prefix);
    });
    for (const SourceTensor& tensor : source_.tensors()) {
      std::string name = tensor.stored.name;
      if (only_ours && !name.starts_with(architecture_.our_prefix)) {
        mapper_.drop(tensor, "not among ", architecture_.our_prefix, "*");
        continue;
      }
      if (only_ours) name = name.substr(architecture_.our_prefix.size());
      for (const std::string& prefix : architecture_.loose_prefixes)
        if (name.starts_with(prefix)) name = name.substr(prefix.size());
      place(tensor, name);
    }
    tie_head();
    require_all();
    return mapper_.finish(kind);
  }

 private:
  void place(const SourceTensor& tensor, const std::string& name) {
    if (!architecture_.tied_head.empty() && name == architecture_.tied_head) {
      head_ = &tensor;
    } else if (const auto at = in_block(name, architecture_.blocks)) {
      if (std::ranges::find(architecture_.of_block, at->rest) == architecture_.of_block.end()) {
        mapper_.add_unknown(tensor);
        return;
      }
      mapper_.keep(tensor, architecture_.target_prefix + name);
      blocks_ = std::max(blocks_, at->block + 1);
      mapper_.require_alike(tensor, at->rest);
    } else if (std::ranges::find(architecture_.required, name) != architecture_.required.end() || in_pair(name)) {
      mapper_.keep(tensor, architecture_.target_prefix + name);
    } else if (matches_any(name, architecture_.changes_model)) {
      mapper_.add_unknown(tensor);
    } else {
      mapper_.drop(tensor, "not a part of the model");
    }
  }

  bool in_pair(const std::string& name) const {
    return std::ranges::any_of(architecture_.pairs,
                               [&](const auto& pair) { return name == pair.first || name == pair.second; });
  }

  /// A head of its own would be lost: OPT computes its logits with the embedding.
  void tie_head() {
    if (!head_) return;
    const std::string embedding = architecture_.target_prefix + "embed_tokens.weight";
    if (mapper_.has(embedding)) require_equal(source_, mapper_.at(embedding), *head_);
    mapper_.drop(*head_, "repeats the embedding");
  }

  void require_all() {
    const auto full = [&](const std::string& name) { return architecture_.target_prefix + name; };
    for (const std::string& name : architecture_.required) mapper_.require(full(name));
    for (const auto& [one, other] : architecture_.pairs)
      if (mapper_.has(full(one)) || mapper_.has(full(other))) mapper_.require(full(one)), mapper_.require(full(other));
    for (int block = 0; block < std::max(blocks_, 1); ++block)
      for (const std::string& rest : architecture_.of_block)
        mapper_.require(full(concat(architecture_.blocks, block, ".", rest)));
  }

  const WeightSource& source_;
  const Architecture architecture_;
  WeightMapper mapper_;
  int blocks_ = 0;
  const SourceTensor* head_ = nullptr;
};

/// Everything that can be written.
WeightMap map_raw(const WeightSource& source) {
  WeightMapper mapper(source);
  for (const SourceTensor& tensor : source.tensors())
    tensor.stored.dtype ? mapper.keep(tensor, tensor.stored.name)
                        : mapper.drop(tensor, tensor.stored.dtype_name, " cannot be written");
  return mapper.finish("raw");
}

/// The tensor that `name` repeats: eP-ALM's trainer saves adapters under `model_text.….X`, and as `transformer.X`
/// again. nullptr when there is none.
const SourceTensor* repeated_by(const WeightSource& source, const std::string& name) {
  const std::string again = "transformer.";
  if (!name.starts_with(again)) return nullptr;
  const SourceTensor* first = source.find("model_text." + name.substr(again.size()));
  return first ? first : source.find("module.model_text." + name.substr(again.size()));
}

/// What eP-ALM's trainer saves.
WeightMap map_epalm(const WeightSource& source) {
  WeightMapper mapper(source);
  int connectors = 0;
  bool prompt = false, prompt_mlp = false;
  for (const SourceTensor& tensor : source.tensors()) {
    std::string name = tensor.stored.name;
    if (name.starts_with("module.")) name = name.substr(7);
    const bool connector = name.starts_with("connector."), of_prompt = name.starts_with("prompt_module.");
    if (!connector && !of_prompt && name.find("adapter") == std::string::npos) {
      mapper.drop(tensor, "not trained by eP-ALM");
      continue;
    }
    if (const SourceTensor* first = repeated_by(source, name)) {
      require_equal(source, *first, tensor);
      mapper.drop(tensor, "repeats ", first->stored.name);
      continue;
    }
    mapper.keep(tensor, name);
    if (const auto at = in_block(name, "connector.")) connectors = std::max(connectors, at->block + 1);
    prompt = prompt || of_prompt;
    prompt_mlp = prompt_mlp || (of_prompt && !name.ends_with(".0.weight"));
  }
  for (int i = 0; i < connectors; ++i)
    for (const char* part : {".weight", ".bias"}) mapper.require(concat("connector.", i, part));
  if (prompt) mapper.require("prompt_module.prefix_embedding.0.weight");
  for (const char* part : {"1.weight", "1.bias", "3.weight", "3.bias"})
    if (prompt_mlp) mapper.require(std::string("prompt_module.prefix_embedding.") + part);
  return mapper.finish("epalm");
}

}  // namespace

WeightKind weight_kind(std::string_view word) {
  std::string known;
  for (const auto& [name, kind] : kKinds) {
    if (name == word) return kind;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  fail(ErrorKind::kConfig, "weights: --as must be one of ", known, "; got ", word);
}

std::string_view to_string(WeightKind kind) {
  return std::ranges::find(kKinds, kind, &std::pair<std::string_view, WeightKind>::second)->first;
}

WeightMap map_weights(const WeightSource& source, WeightKind kind) {
  switch (kind) {
    case WeightKind::kRaw:
      return map_raw(source);
    case WeightKind::kOpt:
      return TransformerMapper(source, opt_architecture()).map(to_string(kind));
    case WeightKind::kTimmVit:
      return TransformerMapper(source, vit_architecture()).map(to_string(kind));
    case WeightKind::kTimmVitNpz:
      return map_jax_vit(source);
    case WeightKind::kEpalm:
      return map_epalm(source);
  }
  fail(ErrorKind::kInternal, "map_weights: unknown kind ", static_cast<int>(kind));
}

}  // namespace permafrost
