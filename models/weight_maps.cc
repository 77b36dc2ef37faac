#include "models/weight_maps.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "core/base/check.h"
#include "core/weights/match.h"
#include "core/weights/problems.h"
#include "models/weight_map_npz.h"

namespace permafrost {

namespace {

constexpr std::pair<std::string_view, WeightKind> kKinds[] = {{"raw", WeightKind::kRaw},
                                                              {"opt", WeightKind::kOpt},
                                                              {"timm_vit", WeightKind::kTimmVit},
                                                              {"timm_vit_npz", WeightKind::kTimmVitNpz},
                                                              {"epalm", WeightKind::kEpalm}};

/// "layers.12.fc1.weight" with "layers." -> 12 and "fc1.weight".
struct InBlock {
  int block = 0;
  std::string rest;
};
std::optional<InBlock> in_block(std::string_view name, std::string_view blocks) {
  if (!name.starts_with(blocks)) return std::nullopt;
  name.remove_prefix(blocks.size());
  InBlock result;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), result.block);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.' || result.block < 0 ||
      result.block > 9999)
    return std::nullopt;
  result.rest = name.substr(static_cast<size_t>(end - name.data()) + 1);
  return result;
}

/// A transformer's names: those of its blocks, and those beside them.
struct Architecture {
  std::string our_prefix;                   ///< "text."
  std::vector<std::string> loose_prefixes;  ///< taken away, each once, in this order, where they are
  std::string target_prefix;                ///< put in front of every name
  std::string blocks;                       ///< "layers."
  std::vector<std::string> of_block;        ///< all required
  std::vector<std::string> required;        ///< beside the blocks
  std::vector<std::string> pairs;           ///< all or none of each pair: "a|b"
  std::string tied_head;                    ///< repeats embed_tokens.weight; empty: there is none
  std::vector<std::string> changes_model;   ///< patterns of tensors without which the model computes something else
};

std::vector<std::string> with_bias(std::initializer_list<const char*> modules) {
  std::vector<std::string> names;
  for (const char* module : modules)
    for (const char* part : {".weight", ".bias"}) names.push_back(std::string(module) + part);
  return names;
}

Architecture opt_architecture() {
  return {"text.",
          {"model.", "model.", "decoder."},
          "model.decoder.",
          "layers.",
          with_bias({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                     "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"}),
          {"embed_tokens.weight", "embed_positions.weight"},
          {"final_layer_norm.weight|final_layer_norm.bias", "project_in.weight|project_out.weight"},
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
          {"head.weight|head.bias"},
          "",
          {"dist_token", "reg_token", "norm_pre.*", "fc_norm.*", "time_embed", "patch_embed.norm.*"}};
}

bool matches_any(const std::string& name, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns, [&](const std::string& pattern) { return matches_pattern(name, pattern); });
}

class Mapper {
 public:
  explicit Mapper(const WeightSource& source) : source_(source) {}

  void keep(const SourceTensor& tensor, const std::string& name) {
    const auto [place, fresh] = by_name_.emplace(name, &tensor);
    if (!fresh) {
      problems_.add("ambiguous: '", name, "' is both '", place->second->stored.name, "' and '", tensor.stored.name,
                    "'");
      return;
    }
    if (!tensor.stored.dtype) {
      problems_.add("wrong dtype: '", tensor.stored.name, "' is ", tensor.stored.dtype_name,
                    ", which cannot be written");
      return;
    }
    map_.tensors.push_back({name, tensor.stored.shape, {{&tensor}}});
    if (tensor.stored.name != name) map_.renamed.emplace_back(tensor.stored.name, name);
  }
  template <typename... Why>
  void drop(const SourceTensor& tensor, const Why&... why) {
    map_.dropped.push_back(concat(tensor.stored.name, " (", why..., ")"));
  }
  bool has(const std::string& name) const { return by_name_.contains(name); }
  const SourceTensor& at(const std::string& name) const { return *by_name_.at(name); }
  void require(const std::string& name) {
    if (!has(name)) map_.missing.push_back(name);
  }

  ProblemList& problems() { return problems_; }
  WeightMap finish(std::string_view kind) {
    problems_.throw_if_any(concat(source_.path(), ": expected weights of kind ", kind));
    if (map_.tensors.empty())
      fail(ErrorKind::kWeights, source_.path(), ": expected weights of kind ", kind, "; got none of them among ",
           source_.tensors().size(), " tensors", source_.tensors().empty() ? "" : ", the first one '",
           source_.tensors().empty() ? "" : source_.tensors()[0].stored.name, source_.tensors().empty() ? "" : "'");
    return std::move(map_);
  }

 private:
  const WeightSource& source_;
  std::map<std::string, const SourceTensor*> by_name_;  // the new names
  WeightMap map_;
  ProblemList problems_;
};

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
        mapper_.problems().add("unknown: '", tensor.stored.name, "' ", tensor.stored.shape,
                               ", so this is another architecture");
        return;
      }
      mapper_.keep(tensor, architecture_.target_prefix + name);
      blocks_ = std::max(blocks_, at->block + 1);
      require_alike(tensor, at->rest);
    } else if (std::ranges::find(architecture_.required, name) != architecture_.required.end() || in_pair(name)) {
      mapper_.keep(tensor, architecture_.target_prefix + name);
    } else if (matches_any(name, architecture_.changes_model)) {
      mapper_.problems().add("unknown: '", tensor.stored.name, "' ", tensor.stored.shape,
                             ", so this is another architecture");
    } else {
      mapper_.drop(tensor, "not a part of the model");
    }
  }

  bool in_pair(const std::string& name) const {
    return std::ranges::any_of(architecture_.pairs, [&](const std::string& pair) {
      const size_t bar = pair.find('|');
      return name == pair.substr(0, bar) || name == pair.substr(bar + 1);
    });
  }

  void require_alike(const SourceTensor& tensor, const std::string& rest) {
    const auto [first, fresh] = first_of_.emplace(rest, &tensor);
    if (!fresh && first->second->stored.shape != tensor.stored.shape)
      mapper_.problems().add("misshapen: '", tensor.stored.name, "' must be ", first->second->stored.shape, ", as '",
                             first->second->stored.name, "' is; got ", tensor.stored.shape);
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
    for (const std::string& pair : architecture_.pairs) {
      const size_t bar = pair.find('|');
      const std::string one = full(pair.substr(0, bar)), other = full(pair.substr(bar + 1));
      if (mapper_.has(one) || mapper_.has(other)) mapper_.require(one), mapper_.require(other);
    }
    for (int block = 0; block < std::max(blocks_, 1); ++block)
      for (const std::string& rest : architecture_.of_block)
        mapper_.require(full(concat(architecture_.blocks, block, ".", rest)));
  }

  const WeightSource& source_;
  const Architecture architecture_;
  Mapper mapper_;
  int blocks_ = 0;
  const SourceTensor* head_ = nullptr;
  std::map<std::string, const SourceTensor*> first_of_;
};

/// Everything that can be written.
WeightMap map_raw(const WeightSource& source) {
  Mapper mapper(source);
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
  Mapper mapper(source);
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
