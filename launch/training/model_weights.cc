#include "launch/training/model_weights.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <limits>

#include "core/base/narrow.h"
#include "core/weights/load_ranges.h"
#include "core/weights/match.h"
#include "launch/training/thread_io.h"
#include "models/weight_names.h"

namespace permafrost {

namespace {

/// Elements [first, first + elements) of a parameter, which this rank keeps at `target`.
struct KeptPiece {
  int64_t first = 0, elements = 0;
  std::byte* target = nullptr;
};

class WeightLoader {
 public:
  WeightLoader(const config::Config& config, const Plan& plan, std::span<const FrozenRange> ranges,
               const ShardedAdamw& optimizer, ThreadPool& pool)
      : config_(config),
        plan_(plan),
        ranges_(ranges),
        optimizer_(optimizer),
        pool_(pool),
        later_(plan.params.size(), false) {}

  /// These come from another file, whatever parts loaded before it say.
  void leave_for_later(const std::vector<int>& params) {
    for (int p : params) later_[static_cast<size_t>(p)] = true;
  }
  void leave_nothing() { later_.assign(plan_.params.size(), false); }

  void load_part(const std::string& what, const std::string& path, const PartWeights& part) {
    if (part.params.empty()) return;
    if (path.empty()) {
      for (int p : part.params) fill_random(p);
      if (what == "adapter") return;  // starting from the published initialisation is the ordinary case
      const bool all_train =
          std::ranges::all_of(part.params, [&](int p) { return plan_.params[static_cast<size_t>(p)].trainable; });
      lines_.push_back({concat(what, ": RANDOM weights from seed ", config_.train().seed(), " (weights.", what,
                               " is not set)", all_train ? ", all of which train" : ": outputs mean nothing")});
      return;
    }
    const WeightSource source = WeightSource::open(path);
    const LoadReport report = match_parameters(part.required, source, part.rules);
    std::vector<ReadRange> reads;
    std::vector<int> param_of;  // of each read
    for (size_t i = 0; i < part.params.size(); ++i) {
      const int p = part.params[i];
      for (const KeptPiece& piece : kept_pieces(p)) {
        reads.push_back({report.matches[i].tensor, piece.first, piece.elements, kept_dtype(p), piece.target,
                         report.matches[i].aliases});
        param_of.push_back(p);
      }
    }
    const RangesRead read = load_ranges(source, reads, true);
    needed_bytes_ += read.bytes;
    Line line{concat(what, ": ", path, ": ", report.str())};
    for (size_t i = 0; i < reads.size(); ++i) {
      const double change = read.statistics[i].largest_relative_change;
      // Masters are f32: only what is stored for good in fewer bits is worth a word.
      if (plan_.params[static_cast<size_t>(param_of[i])].trainable) continue;
      if (change > line.largest_change) {
        line.largest_change = change;
        line.param = param_of[i];
      }
    }
    lines_.push_back(line);
  }

  /// What all ranks found together. Collective.
  std::vector<std::string> agreed_lines(Group& world) const {
    std::vector<double> changes;
    for (const Line& line : lines_) changes.push_back(line.largest_change);
    const Tensor all_changes = flat(std::span(changes));
    world.all_reduce(all_changes, all_changes, ReduceOp::kMax, StreamView::caller(), "largest change").wait();
    std::vector<int64_t> params;
    for (size_t i = 0; i < lines_.size(); ++i)
      params.push_back(lines_[i].largest_change == changes[i] ? lines_[i].param : Line::kNone);
    const Tensor all_params = flat(std::span(params));
    world.all_reduce(all_params, all_params, ReduceOp::kMin, StreamView::caller(), "most changed").wait();
    std::vector<std::string> texts;
    for (size_t i = 0; i < lines_.size(); ++i) {
      texts.push_back(lines_[i].text);
      if (changes[i] > 0)
        texts.back() += concat("; largest relative change by rounding ", changes[i], " in ",
                               plan_.params[static_cast<size_t>(params[i])].name);
    }
    return texts;
  }

  int64_t needed_bytes() const { return needed_bytes_; }

 private:
  struct Line {
    static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
    std::string text;
    double largest_change = 0;
    int64_t param = kNone;  // that changed most; the first of them
  };

  DType kept_dtype(int p) const {
    const ParamPlan& param = plan_.params[static_cast<size_t>(p)];
    return param.trainable ? DType::kF32 : param.placement.stored.dtype;
  }

  /// Of a trainable parameter what lies in this rank's slice of the masters, of a frozen one what lies in its ranges.
  std::vector<KeptPiece> kept_pieces(int p) const {
    const ParamPlan& param = plan_.params[static_cast<size_t>(p)];
    std::vector<KeptPiece> pieces;
    if (later_[static_cast<size_t>(p)]) return pieces;
    if (param.trainable) {
      const int64_t from = std::max(optimizer_.slice_begin(), param.trainable_offset);
      const int64_t to = std::min(optimizer_.slice_end(), param.trainable_offset + param.shape.elements());
      if (from < to)
        pieces.push_back(
            {from - param.trainable_offset, to - from,
             reinterpret_cast<std::byte*>(optimizer_.master().data<float>() + (from - optimizer_.slice_begin()))});
      return pieces;
    }
    const int64_t begin = param.placement.offset, end = begin + param.placement.stored.bytes();
    const int64_t item = size_of(param.placement.stored.dtype);
    for (const FrozenRange& range : ranges_) {
      const int64_t from = std::max(begin, range.begin), to = std::min(end, range.end);
      if (from >= to) continue;
      PERMAFROST_CHECK((from - begin) % item == 0 && (to - begin) % item == 0, "load_model_weights: frozen range [",
                       range.begin, ", ", range.end, ") must hold whole elements of ", item,
                       " bytes; got one cut [param=", param.name, "]");
      pieces.push_back({(from - begin) / item, (to - from) / item, range.data + (from - range.begin)});
    }
    return pieces;
  }

  void fill_random(int p) const {
    const ParamPlan& param = plan_.params[static_cast<size_t>(p)];
    const DType dtype = kept_dtype(p);
    for (const KeptPiece& piece : kept_pieces(p))
      fill(param.initializer, config_.train().seed(), param.name, dtype, piece.first,
           {piece.target, narrow<size_t>(piece.elements * size_of(dtype))}, pool_);
  }

  const config::Config& config_;
  const Plan& plan_;
  std::span<const FrozenRange> ranges_;
  const ShardedAdamw& optimizer_;
  ThreadPool& pool_;
  std::vector<bool> later_;
  std::vector<Line> lines_;
  int64_t needed_bytes_ = 0;
};

std::string gigabytes(int64_t bytes) {
  char text[32];
  const double value = static_cast<double>(bytes);
  std::snprintf(text, sizeof text, bytes < 1'000'000'000 ? "%.2f MB" : "%.2f GB",
                value / (bytes < 1'000'000'000 ? 1e6 : 1e9));
  return text;
}

/// Makes `loaded.seconds` the node's, and adds the node's line. Collective.
void sum_over_node(LoadedWeights& loaded, Group& node) {
  std::array<int64_t, 3> sums{loaded.needed_bytes, loaded.read_bytes.value_or(0), loaded.read_bytes ? 0 : 1};
  const Tensor all_sums = flat(std::span<int64_t>(sums));
  node.all_reduce(all_sums, all_sums, ReduceOp::kSum, StreamView::caller(), "bytes loaded").wait();
  const Tensor slowest = flat(std::span(&loaded.seconds, 1));
  node.all_reduce(slowest, slowest, ReduceOp::kMax, StreamView::caller(), "seconds to load").wait();
  const auto [needed, read, uncounted] = sums;
  if (needed == 0) return;
  char figures[64];
  std::snprintf(figures, sizeof figures, " (%.2f x), %.1f s", static_cast<double>(read) / static_cast<double>(needed),
                loaded.seconds);
  std::string line =
      concat("weights: ", gigabytes(needed), " needed on this node, ", gigabytes(read), " read", figures);
  if (uncounted > 0) {
    std::snprintf(figures, sizeof figures, "%.1f s", loaded.seconds);
    line = concat("weights: ", gigabytes(needed), " needed on this node, ", figures,
                  " (this system does not count the bytes that were read)");
  }
  loaded.lines.push_back(line);
}

}  // namespace

LoadedWeights load_model_weights(const config::Config& config, const Plan& plan, std::span<const FrozenRange> ranges,
                                 ShardedAdamw& optimizer, Group& world, Group& node, ThreadPool& pool) {
  const auto begin = std::chrono::steady_clock::now();
  const std::optional<int64_t> read_before = bytes_read_by_this_thread();
  const Graph& graph = plan.graphs.front();
  std::vector<bool> trainable;
  for (const ParamPlan& param : plan.params) trainable.push_back(param.trainable);
  PartWeights adapter = adapter_weights(graph, trainable);
  if (config.weights().adapter().empty()) {
    // Trainable parameters of the backbones keep what their files gave them.
    std::erase_if(adapter.params, [&](int p) {
      const std::string& name = plan.params[static_cast<size_t>(p)].name;
      return name.starts_with("vision.") || name.starts_with("text.");
    });
  }
  WeightLoader loader(config, plan, ranges, optimizer, pool);
  loader.leave_for_later(adapter.params);
  loader.load_part("vision", config.weights().vision(), vision_weights(graph));
  loader.load_part("text", config.weights().text(), text_weights(graph));
  loader.leave_nothing();
  loader.load_part("adapter", config.weights().adapter(), adapter);

  LoadedWeights loaded;
  loaded.needed_bytes = loader.needed_bytes();
  const std::optional<int64_t> read_after = bytes_read_by_this_thread();
  if (read_before && read_after) loaded.read_bytes = *read_after - *read_before;
  loaded.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  loaded.lines = loader.agreed_lines(world);
  sum_over_node(loaded, node);
  return loaded;
}

}  // namespace permafrost
