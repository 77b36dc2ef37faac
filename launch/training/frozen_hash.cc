#include "launch/training/frozen_hash.h"

#include <algorithm>

#include "core/base/narrow.h"

namespace permafrost {

namespace {

struct UnitBytes {
  std::string name;
  int64_t begin = 0, end = 0;  // in the frozen space
  bool over_nodes = false;     // no node has the whole unit
};

/// In the order of the frozen space. A unit is one range of it.
std::vector<UnitBytes> frozen_units(const Plan& plan) {
  std::vector<UnitBytes> units;
  std::vector<const ParamPlan*> frozen;
  for (const ParamPlan& param : plan.params)
    if (!param.trainable && param.placement.stored.bytes() > 0) frozen.push_back(&param);
  std::ranges::sort(frozen, {}, [](const ParamPlan* param) { return param->placement.offset; });
  int unit = -1;
  for (const ParamPlan* param : frozen) {
    const int64_t begin = param->placement.offset, end = begin + param->placement.stored.bytes();
    if (param->unit != unit || units.empty()) {
      unit = param->unit;
      const std::string& name = plan.units[static_cast<size_t>(unit)].name;
      PERMAFROST_CHECK(std::ranges::find(units, name, &UnitBytes::name) == units.end(),
                       "hash_frozen: the frozen parameters of a unit must stand together; got some of ", name,
                       " apart [param=", param->name, "]");
      const bool sharded = plan.frozen_units[static_cast<size_t>(unit)].sharded;
      units.push_back({name, begin, end, sharded && plan.world.nodes > 1});
    }
    units.back().end = end;
  }
  return units;
}

/// What one thread hashes in one go: blocks of one unit.
struct HashTask {
  size_t unit = 0;
  int64_t first_block = 0;
  std::span<const std::byte> bytes;
};

std::vector<HashTask> hash_tasks(const std::vector<UnitBytes>& units, std::span<const FrozenRange> ranges) {
  constexpr int64_t kBlock = BlockHasher::kBlockBytes, kTaskBytes = 256 * kBlock;
  std::vector<HashTask> tasks;
  for (size_t u = 0; u < units.size(); ++u) {
    const UnitBytes& unit = units[u];
    for (const FrozenRange& range : ranges) {
      const int64_t from = std::max(unit.begin, range.begin), to = std::min(unit.end, range.end);
      if (from >= to) continue;
      PERMAFROST_CHECK((from - unit.begin) % kBlock == 0 && (to == unit.end || (to - unit.begin) % kBlock == 0),
                       "hash_frozen: ranges must be cut at multiples of ", kBlock, " bytes from the beginning of ",
                       unit.name, " (byte ", unit.begin, "); got [", range.begin, ", ", range.end, ")");
      for (int64_t begin = from; begin < to; begin += kTaskBytes)
        tasks.push_back({u,
                         (begin - unit.begin) / kBlock,
                         {range.data + (begin - range.begin), narrow<size_t>(std::min(kTaskBytes, to - begin))}});
    }
  }
  return tasks;
}

/// Per unit its four lanes, then the bytes that were hashed; flat, as sums over ranks take them.
std::vector<int64_t> hash_own(const std::vector<UnitBytes>& units, const std::vector<HashTask>& tasks,
                              ThreadPool& pool) {
  const auto threads = static_cast<size_t>(pool.threads());
  std::vector<BlockHasher> hashers(threads);
  std::vector<std::vector<BlockHashSum>> sums(threads, std::vector<BlockHashSum>(units.size()));
  pool.run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int thread) {
    const HashTask& task = tasks[static_cast<size_t>(i)];
    const auto t = static_cast<size_t>(thread);
    hashers[t].add(units[task.unit].name, task.first_block, task.bytes, sums[t][task.unit]);
  });
  std::vector<int64_t> flat_sums;
  for (size_t u = 0; u < units.size(); ++u)
    for (size_t lane = 0; lane < BlockHashSum{}.size(); ++lane) {
      uint64_t sum = 0;
      for (size_t t = 0; t < threads; ++t) sum += sums[t][u][lane];
      flat_sums.push_back(static_cast<int64_t>(sum));
    }
  int64_t bytes = 0;
  for (const HashTask& task : tasks) bytes += static_cast<int64_t>(task.bytes.size());
  flat_sums.push_back(bytes);
  return flat_sums;
}

}  // namespace

FrozenHash hash_frozen(const Plan& plan, std::span<const FrozenRange> ranges, Group& world, Group& node,
                       ThreadPool& pool) {
  const std::vector<UnitBytes> units = frozen_units(plan);
  const auto summed_over = [&](Group& group, bool over_nodes) {
    std::vector<HashTask> tasks = hash_tasks(units, ranges);
    std::erase_if(tasks, [&](const HashTask& task) { return units[task.unit].over_nodes != over_nodes; });
    std::vector<int64_t> sums = hash_own(units, tasks, pool);
    const Tensor all = flat(std::span(sums));
    group.all_reduce(all, all, ReduceOp::kSum, StreamView::caller(), "frozen hash").wait();  // of integers: they wrap
    return sums;
  };
  std::vector<int64_t> sums = summed_over(node, false);
  const std::vector<int64_t> others = summed_over(world, true);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += others[i];  // one of the two is zero
  int64_t bytes = 0;
  for (const UnitBytes& unit : units) bytes += unit.end - unit.begin;
  PERMAFROST_CHECK(sums.back() == bytes, "hash_frozen: the ranges of ", node.size(), " ranks of the node, and of ",
                   world.size(), " ranks for units sharded over nodes, must hold every byte of the frozen parameters ",
                   "once, ", bytes, " in all; got ", sums.back());
  FrozenHash hash;
  Sha256 total;
  for (size_t u = 0; u < units.size(); ++u) {
    FrozenHash::Unit unit{units[u].name};
    for (size_t lane = 0; lane < unit.sum.size(); ++lane)
      unit.sum[lane] = static_cast<uint64_t>(sums[unit.sum.size() * u + lane]);
    const std::string line = concat(unit.name, ' ', to_hex(unit.sum), '\n');
    total.update(line.data(), line.size());
    hash.units.push_back(std::move(unit));
  }
  hash.sha256 = total.finish();
  return hash;
}

std::vector<std::string> changed_units(const FrozenHash& before, const FrozenHash& after) {
  PERMAFROST_CHECK(before.units.size() == after.units.size(), "changed_units: hashes of one plan expected; got ",
                   before.units.size(), " and ", after.units.size(), " units");
  std::vector<std::string> names;
  for (size_t u = 0; u < before.units.size(); ++u)
    if (before.units[u] != after.units[u]) names.push_back(after.units[u].name);
  return names;
}

}  // namespace permafrost
