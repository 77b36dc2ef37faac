#include "models/epalm/decoding.h"

#include "core/graph/ops/shape_ops.h"
#include "core/graph/ops/token_cache.h"
#include "models/epalm/parts.h"
#include "models/opt_adaptor.h"

namespace permafrost {

namespace {

struct LayerCache {
  Value keys, values;
};

class EpalmDecodingBuilder {
 public:
  EpalmDecodingBuilder(const EpalmConfig& config, DType compute, const EpalmDecodingShape& shape)
      : config_(config),
        shape_(shape),
        cache_(epalm_cache(config)),
        // Training's graph is made for its tables of units and parameters alone.
        graph_(Graph::sharing(build_epalm(config, compute, {1, 2, false}))) {}

  Graph prefill() {
    declare_caches();
    const int64_t b = shape_.batch, t = shape_.prompt;
    const Value images = image_input(), ids = numbers("input_ids", {b, t}), positions = numbers("position_ids", {b, t});
    lengths_.before = numbers("lengths_before", {b});
    lengths_.after = numbers("lengths_after", {b});
    if (config_.vis_row == EpalmConfig::VisRow::kPublished) lengths_.open = numbers("open_lengths", {b});
    begin_ = numbers("cache_begin", {b});
    const Value last = numbers("last_rows", {b});
    const std::vector<Value> vis = epalm_vis(graph_, config_, images, false);
    if (cache_ == EpalmCache::kRefreshed) {
      auto unit = graph_.unit("connector");
      write_tokens(graph_, vis_states_[0], vis[static_cast<size_t>(*config_.feature_of_layer(config_.end - 1))],
                   begin_);
    }
    x_ = epalm_embed(graph_, config_, ids, positions);
    for (int64_t layer = 0; layer < config_.text.layers; ++layer) prefill_layer(layer, vis);
    return score(last);
  }

  Graph step() {
    declare_caches();
    const int64_t r = shape_.rows();
    const Value ids = numbers("input_ids", {r, 1}), positions = numbers("position_ids", {r, 1});
    parents_ = numbers("parents", {r});
    used_ = {numbers("used_before", {r}), numbers("used_after", {r})};
    place_ = {numbers("place_before", {r}), numbers("place_after", {r})};
    keys_ = {numbers("keys_before", {r}), numbers("keys_after", {r})};
    allowed_ = {flags("allowed_before", {r, 1, cache_tokens(0)}), flags("allowed_after", {r, 1, all_tokens()})};
    if (cache_ == EpalmCache::kRefreshed) {
      allowed_vis_ = flags("allowed_vis", {r, 2, all_tokens()});
      vis_place_ = numbers("vis_place", {r});
    }
    x_ = opt_embed(graph_, config_.text, ids, positions);
    for (int64_t layer = 0; layer < config_.text.layers; ++layer) step_layer(layer);
    if (cache_ == EpalmCache::kRefreshed) {
      auto unit = graph_.unit("text.rows");
      x_ = slice_tokens(graph_, x_, 1, 2);
    }
    return score({});
  }

  Graph see() {
    declare_vis(config_.features);
    const Value images = image_input();
    begin_ = numbers("cache_begin", {shape_.batch});
    const std::vector<Value> vis = epalm_vis(graph_, config_, images, false);
    auto unit = graph_.unit("connector");
    for (size_t j = 0; j < vis.size(); ++j) write_tokens(graph_, vis_states_[j], vis[j], begin_);
    return std::move(graph_);
  }

  Graph whole() {
    declare_vis(config_.features);
    const int64_t r = shape_.rows(), before = config_.prompt_tokens() + shape_.tokens, after = all_tokens();
    const Value ids = numbers("input_ids", {r, shape_.tokens}), positions = numbers("position_ids", {r, shape_.tokens});
    lengths_.before = numbers("lengths_before", {r});
    lengths_.after = numbers("lengths_after", {r});
    allowed_ = {flags("allowed_before", {r, before, before}), flags("allowed_after", {r, after, after})};
    const Value last = numbers("last_rows", {r});
    x_ = epalm_embed(graph_, config_, ids, positions);
    for (int64_t layer = 0; layer < config_.text.layers; ++layer) {
      OptLayerOptions options;
      add_adapter(graph_, config_.adaptor, layer, options);
      add_vis(graph_, config_, layer, vis_states_, options);
      const bool after_start = layer >= config_.start;
      options.attend = [this, after_start](Value q, Value k, Value v, AttentionConfig attention_config) {
        attention_config.mask = MaskKind::kExplicit;
        attention_config.lengths = after_start ? lengths_.after : lengths_.before;
        attention_config.allowed = after_start ? allowed_.after : allowed_.before;
        return attention(graph_, q, k, v, attention_config);
      };
      x_ = opt_layer(graph_, config_.text, layer, x_, options);
    }
    return score(last);
  }

 private:
  /// The same for layers in front of the window and from its start on.
  struct Pair {
    Value before, after;
    Value of(bool after_start) const { return after_start ? after : before; }
  };

  int64_t all_tokens() const { return config_.slots() + shape_.tokens; }
  int64_t cache_tokens(int64_t layer) const {
    return layer < config_.start ? config_.prompt_tokens() + shape_.tokens : all_tokens();
  }
  Value numbers(const char* name, const Shape& shape) { return graph_.input(name, {shape, DType::kI32}); }
  Value flags(const char* name, const Shape& shape) { return graph_.input(name, {shape, DType::kU8}); }
  Value image_input() {
    const int64_t s = config_.vision.image_size;
    return graph_.input("images", {{shape_.batch, config_.vision.channels, s, s}, DType::kF32});
  }

  void declare_vis(int64_t count) {
    for (int64_t j = 0; j < count; ++j)
      vis_states_.push_back(
          graph_.state(concat("vis.", j), {{shape_.rows(), 1, config_.text.hidden}, graph_.compute()}, false));
  }

  void declare_caches() {
    if (cache_ == EpalmCache::kNone)
      fail(ErrorKind::kConfig, "epalm: keys and values can be kept where at most one text layer follows the window (",
           config_.start, " to ", config_.end, " of ", config_.text.layers,
           ") or the visual token's row is causal; got ", config_.text.layers - config_.end, " layers behind it");
    for (int64_t layer = 0; layer < config_.text.layers; ++layer) {
      const TensorSpec spec{{shape_.rows(), cache_tokens(layer), config_.text.hidden}, graph_.compute()};
      caches_.push_back({graph_.state(concat("cache.", layer, ".keys"), spec, false),
                         graph_.state(concat("cache.", layer, ".values"), spec, false)});
    }
    if (cache_ == EpalmCache::kRefreshed) declare_vis(1);
  }

  void prefill_layer(int64_t layer, const std::vector<Value>& vis) {
    OptLayerOptions options = epalm_layer_options(graph_, config_, layer, lengths_, vis);
    const LayerCache cache = caches_[static_cast<size_t>(layer)];
    options.attend = [this, cache](Value q, Value k, Value v, const AttentionConfig& attention_config) {
      write_tokens(graph_, cache.keys, k, begin_);
      write_tokens(graph_, cache.values, v, begin_);
      return attention(graph_, q, k, v, attention_config);
    };
    x_ = opt_layer(graph_, config_.text, layer, x_, options);
  }

  void step_layer(int64_t layer) {
    // The last layer of the window computes VIS beside the token, for the last layer of all.
    const bool two_rows = cache_ == EpalmCache::kRefreshed && layer >= config_.end - 1, after = layer >= config_.start;
    OptLayerOptions options;
    add_adapter(graph_, config_.adaptor, layer, options);
    if (two_rows && layer == config_.end - 1)
      options.before = [this](Value x) { return concat_tokens(graph_, {vis_states_[0], x}); };
    const LayerCache cache = caches_[static_cast<size_t>(layer)];
    const bool fresh_vis = two_rows && layer == config_.end;
    options.attend = [=, this](Value q, Value k, Value v, AttentionConfig attention_config) {
      for (const auto& [state, rows] : {std::pair{cache.keys, k}, std::pair{cache.values, v}}) {
        select_rows(graph_, state, parents_, used_.of(after));
        if (fresh_vis) write_tokens(graph_, state, slice_tokens(graph_, rows, 0, 1), vis_place_);
        write_tokens(graph_, state, two_rows ? slice_tokens(graph_, rows, 1, 2) : rows, place_.of(after));
      }
      attention_config.mask = MaskKind::kExplicit;
      attention_config.lengths = keys_.of(after);
      attention_config.allowed = two_rows ? allowed_vis_ : allowed_.of(after);
      return attention(graph_, q, cache.keys, cache.values, attention_config);
    };
    x_ = opt_layer(graph_, config_.text, layer, x_, options);
  }

  /// last: rows that predict; not there = all.
  Graph score(Value last) {
    if (last.index >= 0) {
      auto unit = graph_.unit("text.rows");
      x_ = gather_rows(graph_, x_, last);
    }
    graph_.keep(opt_head(graph_, config_.text, opt_final(graph_, config_.text, x_)));
    return std::move(graph_);
  }

  const EpalmConfig& config_;
  const EpalmDecodingShape& shape_;
  EpalmCache cache_;
  Graph graph_;
  std::vector<LayerCache> caches_;
  std::vector<Value> vis_states_;
  EpalmLengths lengths_;
  Value begin_, parents_, allowed_vis_, vis_place_;
  Pair used_, place_, keys_, allowed_;
  Value x_;
};

}  // namespace

EpalmCache epalm_cache(const EpalmConfig& config) {
  const int64_t behind = config.text.layers - config.end;
  if (config.vis_row == EpalmConfig::VisRow::kCausal || behind == 0) return EpalmCache::kConstant;
  return behind == 1 ? EpalmCache::kRefreshed : EpalmCache::kNone;
}

Graph build_epalm_decoding(const EpalmConfig& config, DType compute, const EpalmDecodingShape& shape,
                           EpalmProgram program) {
  PERMAFROST_CHECK(shape.batch > 0 && shape.beams > 0 && shape.prompt > 0 && shape.prompt <= shape.tokens,
                   "epalm decoding: expected batch, beams, prompt >= 1 and tokens >= prompt; got ", shape.batch, ", ",
                   shape.beams, ", ", shape.prompt, ", ", shape.tokens);
  if (shape.tokens > config.text.max_positions)
    fail(ErrorKind::kConfig, "epalm decoding: prompt and generated tokens must fit the text model's ",
         config.text.max_positions, " positions; got ", shape.tokens, " (", shape.prompt, " of the prompt)");
  config.check();
  EpalmDecodingBuilder builder(config, compute, shape);
  switch (program) {
    case EpalmProgram::kPrefill:
      return builder.prefill();
    case EpalmProgram::kStep:
      return builder.step();
    case EpalmProgram::kSee:
      return builder.see();
    case EpalmProgram::kWhole:
      return builder.whole();
  }
  fail(ErrorKind::kInternal, "build_epalm_decoding: unknown program ", static_cast<int>(program));
}

}  // namespace permafrost
