// What a step gathers, reduces and moves is what the plan says, and what follows from the shapes of the graph alone, to
// the byte: for every policy, 1 to 4 ranks on one node and on several, 1, 2 and 8 micro-batches, two text buckets.
#include <algorithm>
#include <array>
#include <deque>
#include <set>

#include "data/loader/batch_index.h"
#include "parallel/group/hierarchical_group.h"
#include "parallel/group/inproc_group.h"
#include "tests/launch/trainer_fixture.h"

namespace permafrost {
namespace {

/// Blocks of 4096 go to ranks as evenly as they can, larger parts first.
int64_t own_part(int64_t size, int rank, int ranks) {
  const int64_t blocks = (size + 4095) / 4096, share = blocks / ranks, extra = blocks % ranks;
  const int64_t begin = rank * share + std::min<int64_t>(rank, extra), count = share + (rank < extra ? 1 : 0);
  return std::min((begin + count) * 4096, size) - std::min(begin * 4096, size);
}

/// A way to have frozen weights where they are used.
struct Way {
  const char* name;
  Overrides overrides;
  int ranks_per_node = 0;           ///< 0: all
  bool gathered = false;            ///< into slots
  bool keep_farthest = false;       ///< which unit gives way; else the one used longer ago
  bool only_between_nodes = false;  ///< and read in place on one
  const char* sharded = "*";        ///< units, as a prefix with a star
};

std::vector<Way> ways() {
  const std::string all = "parallel.frozen_policy=SHARDED";
  return {{"resident", {"parallel.frozen_policy=RESIDENT"}, 0, false, false, false, ""},
          {"in place", {all}},
          {"copied inline", {all, "parallel.gather=INLINE"}, 0, true, true},
          {"copied ahead", {all, "parallel.gather=PREFETCH"}, 0, true, false},
          {"nodes of one rank", {all, "parallel.gather=PREFETCH"}, 1, true, false},
          {"nodes of two ranks", {all}, 2, true, false, true},
          {"nodes of two ranks, inline", {all, "parallel.gather=INLINE"}, 2, true, true},
          {"text sharded over nodes",
           {"parallel.frozen_policy=RESIDENT", "parallel.policies+={unit: \"text.*\" policy: SHARDED}"},
           2,
           true,
           false,
           true,
           "text."}};
}

/// Everything below is worked out from graph, needs and numbers; of the plan only the graphs are used.
class Expected {
 public:
  Expected(const Plan& plan, const Way& way, int ranks, int micro_batches)
      : graph_(plan.graphs.back()), needs_(plan.needs.back()), way_(way), ranks_(ranks), micro_batches_(micro_batches) {
    frozen_bytes_.resize(graph_.units().size());
    for (size_t p = 0; p < graph_.params().size(); ++p) {
      const ParamInfo& param = graph_.params()[p];
      const int64_t elements = param.shape.elements();
      if (param.name.starts_with("connector")) {
        space_ += (elements + 31) / 32 * 32;
        ++trainables_;
      } else {
        frozen_bytes_[static_cast<size_t>(param.unit)] += (4 * elements + 63) / 64 * 64;  // everything is f32 here
      }
    }
  }

  int64_t gathered_frozen(int rank) const {
    if (!gathered()) return 0;
    int64_t bytes = 0;
    for (int unit : gathers()) {
      const int64_t size = frozen_bytes_[static_cast<size_t>(unit)];
      bytes += size - own_part(size, rank, ranks_);
    }
    // Between nodes idle ranks gather along; on one node each rank copies for the micro-batches it has.
    int64_t times = 0;
    for (int first = 0; first < micro_batches_; first += ranks_)
      times += several_nodes() || first + rank < micro_batches_ ? 1 : 0;
    return times * bytes;
  }
  bool several_nodes() const { return way_.ranks_per_node > 0 && ranks_ > way_.ranks_per_node; }
  bool gathered() const { return way_.gathered && (several_nodes() || !way_.only_between_nodes); }
  int64_t reduced(int rank) const { return 8 * (space_ - slice(rank)); }
  int64_t gathered_working(int rank) const { return 4 * (space_ - slice(rank)); }
  int64_t norms(int rank) const { return 8 * ((space_ + 4095) / 4096 - (slice(rank) + 4095) / 4096); }
  int64_t vote() const { return (ranks_ - 1) * Voter(ranks_, trainables_, micro_batches_).message_bytes(); }
  int64_t incoming_sums(int rank) const {
    const int per_node = way_.ranks_per_node == 0 ? ranks_ : way_.ranks_per_node;
    if (per_node == 1 || per_node >= ranks_ || ranks_ % per_node != 0) return 8 * (ranks_ - 1) * slice(rank);
    int64_t lane = 0;
    for (int r = rank % per_node; r < ranks_; r += per_node) lane += slice(r);
    return 8 * ((per_node - 1) * lane + (ranks_ / per_node - 1) * slice(rank));
  }

  /// Units in the order in which they come into one of two slots during a micro-batch.
  std::vector<int> gathers() const {
    const std::vector<std::vector<int>> reads = reading_order();
    std::vector<int> result;
    std::deque<int> slots;  // the one used longest ago first
    for (size_t at = 0; at < reads.size(); ++at) {
      for (int unit : reads[at]) {
        const auto held = std::ranges::find(slots, unit);
        if (held != slots.end()) {
          slots.erase(held);
        } else {
          result.push_back(unit);
          if (slots.size() == 2) slots.erase(slots.begin() + loser(slots, reads, at));
        }
        slots.push_back(unit);
      }
    }
    return result;
  }

 private:
  int64_t slice(int rank) const { return own_part(space_, rank, ranks_); }

  /// Which of two held units gives way to what is read at `at`.
  std::ptrdiff_t loser(const std::deque<int>& slots, const std::vector<std::vector<int>>& reads, size_t at) const {
    std::array<size_t, 2> next{};
    for (size_t s = 0; s < 2; ++s) {
      next[s] = at;
      while (next[s] < reads.size() && !std::ranges::count(reads[next[s]], slots[s])) ++next[s];
      if (next[s] == at) return s == 0 ? 1 : 0;  // read by the same operation
    }
    return way_.keep_farthest && next[1] > next[0] ? 1 : 0;
  }

  /// Sharded units that operations read, forward and then backward; operations that read none are left out.
  std::vector<std::vector<int>> reading_order() const {
    std::vector<std::vector<int>> order;
    const auto add = [&](const OpInfo& op, auto&& reads) {
      std::vector<int> units;
      for (size_t i = 0; i < op.params.size(); ++i) {
        const ParamInfo& param = graph_.params()[static_cast<size_t>(op.params[i])];
        const std::string& unit = graph_.units()[static_cast<size_t>(param.unit)].name;
        const std::string prefix = way_.sharded;
        const bool sharded = prefix == "*" || (!prefix.empty() && unit.starts_with(prefix));
        if (!reads(i) || !sharded || param.name.starts_with("connector")) continue;
        if (!std::ranges::count(units, param.unit)) units.push_back(param.unit);
      }
      if (!units.empty()) order.push_back(units);
    };
    for (const OpInfo& op : graph_.ops()) add(op, [](size_t) { return true; });
    for (size_t o = graph_.ops().size(); o-- > 0;) {
      const Needs& needs = needs_.op_needs[o];
      if (!needs.any()) continue;
      const BackwardUse use = graph_.ops()[o].op->backward_use(needs);
      add(graph_.ops()[o], [&](size_t i) { return has(use.params, i); });
    }
    return order;
  }

  const Graph& graph_;
  const NeedAnalysis& needs_;
  const Way& way_;
  int ranks_, micro_batches_;
  std::vector<int64_t> frozen_bytes_;  // per unit
  int64_t space_ = 0, trainables_ = 0;
};

class TrafficCounters : public TrainerTest {
 protected:
  /// Two steps: the first also runs for the maxima alone, so what is gathered and voted happens twice in it.
  void check(const Way& way, int ranks, int micro_batches, std::set<size_t>& buckets_used) const {
    Overrides overrides = way.overrides;
    for (const std::string& more :
         {concat("train.global_batch=", micro_batches), std::string("train.micro_batch=1"),
          std::string("train.max_steps=2"), std::string("freeze[0].pattern=connector*"),
          std::string("freeze+={pattern: \"*\" trainable: false}"), std::string("data.length_buckets=38"),
          std::string("data.length_buckets+=64"), std::string("data.max_text_tokens=64")})
      overrides.push_back(more);
    std::vector<MovedBytes> moved(static_cast<size_t>(ranks));
    std::mutex mutex;
    run_inproc(ranks,
               [&](Group& flat) {
                 const auto rank = static_cast<size_t>(flat.rank());
                 NodeOptions options;
                 options.moved = &moved[rank];
                 const std::vector<int> machines(static_cast<size_t>(ranks), 0);
                 World place{ranks, 1, 1, 0, divide_machines(machines, way.ranks_per_node)};
                 place.nodes = 1 + std::ranges::max(place.node_of_rank);
                 HierarchicalGroup world(flat, place.node_of_rank, options);
                 ThreadPool pool(1);
                 Runtime runtime{world, pool, place, world.node(), "", nullptr, ranks, &moved[rank]};
                 on_rank(overrides, runtime,
                         [&](Trainer& trainer, const config::Resolved& config, const Plan& plan, Runtime&) {
                           const std::string about =
                               concat(way.name, ", rank ", rank, " of ", ranks, ", G = ", micro_batches);
                           for (const int repeats : {plan.slots > 1 ? 2 : 1, 1})
                             expect_traffic(trainer.train_step(false), plan, way, flat, repeats, about);
                           const std::lock_guard lock(mutex);
                           note_buckets(trainer, config.config, plan, buckets_used);
                         });
               },
               {.moved = moved});
  }

  static void expect_traffic(const StepMetrics& metrics, const Plan& plan, const Way& way, const Group& group,
                             int repeats, const std::string& about) {
    const int rank = group.rank(), micro_batches = static_cast<int>(plan.micro_batches);
    const Expected expected(plan, way, group.size(), micro_batches);
    const TrafficPlan planned = plan.traffic_of(rank);
    EXPECT_EQ(planned.gathered_frozen, expected.gathered_frozen(rank)) << about;
    EXPECT_EQ(planned.reduced_gradients, expected.reduced(rank)) << about;
    EXPECT_EQ(planned.gathered_working, expected.gathered_working(rank)) << about;
    EXPECT_EQ(planned.gathered_norms, expected.norms(rank)) << about;
    EXPECT_EQ(planned.vote, expected.vote()) << about;
    EXPECT_EQ(metrics.gathered_bytes, repeats * expected.gathered_frozen(rank) + expected.gathered_working(rank))
        << about;
    EXPECT_EQ(metrics.reduced_bytes, expected.reduced(rank)) << about;
    const int64_t once = expected.incoming_sums(rank) + expected.gathered_working(rank) + expected.norms(rank),
                  each = expected.gathered_frozen(rank) + expected.vote();
    EXPECT_EQ(planned.moved, once + each) << about;
    EXPECT_EQ(metrics.moved_bytes, once + repeats * each) << about;
    EXPECT_EQ(expected.gathered_frozen(rank) > 0,
              expected.gathered() && group.size() > 1 && (expected.several_nodes() || rank < micro_batches))
        << about;
  }

  /// Of the micro-batches of both steps.
  static void note_buckets(const Trainer& trainer, const config::Config& config, const Plan& plan,
                           std::set<size_t>& used) {
    const TextTable& texts = trainer.data().texts;
    const BatchIndex index(texts, loader_config(config, trainer.data()).order, plan.buckets);
    std::vector<int64_t> rows;
    for (int64_t number = 0; number < 2 * plan.micro_batches; ++number) {
      index.members(number, rows);
      for (int64_t row : rows) used.insert(plan.bucket_for(texts.length(row, index.epoch_of(number))));
    }
  }
};

class TrafficOf : public TrafficCounters, public ::testing::WithParamInterface<size_t> {};

TEST_P(TrafficOf, AStepIsThatOfThePlanAndOfTheShapes) {
  const Way way = ways()[GetParam()];
  std::set<size_t> buckets;
  for (int ranks = 1; ranks <= 4; ++ranks)
    for (const int micro_batches : {1, 2, 8}) {
      check(way, ranks, micro_batches, buckets);
      if (HasFailure()) return;
    }
  EXPECT_EQ(buckets.size(), 2u) << "both buckets were used";
}

INSTANTIATE_TEST_SUITE_P(Ways, TrafficOf, ::testing::Range(size_t{0}, ways().size()),
                         [](const auto& info) { return concat("Way", info.param); });

}  // namespace
}  // namespace permafrost
