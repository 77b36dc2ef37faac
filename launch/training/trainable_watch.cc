#include "launch/training/trainable_watch.h"

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/base/sha256.h"

namespace permafrost {

TrainableWatch::TrainableWatch(const Plan& plan, const ShardedAdamw& optimizer, ThreadPool& pool) {
  for (const ParamPlan& param : plan.params) {
    if (!param.trainable || param.shape.elements() == 0) continue;
    const int64_t from = std::max(optimizer.slice_begin(), param.trainable_offset);
    const int64_t to = std::min(optimizer.slice_end(), param.trainable_offset + param.shape.elements());
    if (from < to) pieces_.push_back({names_.size(), from - optimizer.slice_begin(), to - optimizer.slice_begin()});
    names_.push_back(param.name);
  }
  before_ = hashes(optimizer, pool);
}

std::vector<uint64_t> TrainableWatch::hashes(const ShardedAdamw& optimizer, ThreadPool& pool) const {
  std::vector<uint64_t> result(pieces_.size());
  const auto* masters = optimizer.master().data<float>();
  pool.run(static_cast<int64_t>(pieces_.size()), [&](int64_t i, int) {
    const Piece& piece = pieces_[static_cast<size_t>(i)];
    Sha256 hash;
    hash.update(masters + piece.begin, static_cast<size_t>(piece.end - piece.begin) * sizeof(float));
    const auto digest = hash.finish_and_restart();
    std::memcpy(&result[static_cast<size_t>(i)], digest.data(), sizeof(uint64_t));
  });
  return result;
}

std::vector<std::string> TrainableWatch::unchanged(const ShardedAdamw& optimizer, Group& world,
                                                   ThreadPool& pool) const {
  const std::vector<uint64_t> now = hashes(optimizer, pool);
  std::vector<uint8_t> changed(names_.size(), 0);
  for (size_t i = 0; i < pieces_.size(); ++i)
    if (now[i] != before_[i]) changed[pieces_[i].name] = 1;
  const Tensor all = flat(std::span(changed));
  world.all_reduce(all, all, ReduceOp::kMax, StreamView::caller(), "changed trainables").wait();
  std::vector<std::string> names;
  for (size_t i = 0; i < names_.size(); ++i)
    if (changed[i] == 0) names.push_back(names_[i]);
  return names;
}

namespace {
std::string first_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > kShown ? concat(text, " and ", names.size() - kShown, " more") : text;
}
}  // namespace

std::string to_line(const StepChanges& changes) {
  std::string text = concat("step ", changes.step, ": ");
  const std::vector<std::string>&unchanged = changes.unchanged_trainables, &frozen = changes.changed_frozen_units;
  if (unchanged.empty()) {
    text += concat("every trainable changed (", changes.trainables, " tensors)");
  } else {
    text += concat(unchanged.size(), " of ", changes.trainables, " trainables did not change: ", first_names(unchanged),
                   " (gradient zero, because the loss does not depend on them or a factor behind them is still zero; "
                   "learning rate of their group zero; or the update is below the last bit of f32)");
  }
  if (changes.frozen_units == 0) return text + ", nothing is frozen";
  if (frozen.empty()) return text + concat(", no frozen did (hash ", changes.frozen_sha256, ")");
  return text + concat(", but FROZEN weights changed in ", first_names(frozen), " (hash ", changes.frozen_sha256, ")");
}

}  // namespace permafrost
