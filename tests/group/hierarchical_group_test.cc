#include "parallel/group/hierarchical_group.h"

#include <cstring>
#include <numeric>

#include "parallel/group/inproc_group.h"
#include "tests/group/conformance.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::kHere;
using testing::Others;

struct Nodes {
  const char* name;
  std::vector<int> node_of_rank;
  bool regular;
};

class HierarchicalGroupTest : public ::testing::TestWithParam<Nodes> {
 protected:
  static void run(const std::function<void(HierarchicalGroup&)>& body) {
    const std::vector<int>& nodes = GetParam().node_of_rank;
    run_inproc(static_cast<int>(nodes.size()), [&](Group& flat) {
      HierarchicalGroup group(flat, nodes, {});
      EXPECT_EQ(group.regular(), GetParam().regular);
      body(group);
      flat.barrier(kHere, "end of test");
    });
  }
};

TEST_P(HierarchicalGroupTest, Collectives) {
  run([](Group& group) { testing::check_collectives(group, Others::kTakePart); });
}
TEST_P(HierarchicalGroupTest, Streams) {
  run([](Group& group) { testing::check_streams(group, Others::kTakePart); });
}
TEST_P(HierarchicalGroupTest, PointToPoint) {
  run([](Group& group) { testing::check_point_to_point(group); });
}
TEST_P(HierarchicalGroupTest, Split) {
  run([](Group& group) { testing::check_split(group); });
}
TEST_P(HierarchicalGroupTest, ArgumentErrors) {
  run([](Group& group) { testing::check_argument_errors(group); });
}

TEST_P(HierarchicalGroupTest, MovedBytes) {
  const std::vector<int>& nodes = GetParam().node_of_rank;
  std::vector<MovedBytes> moved(nodes.size());
  InprocOptions options;
  options.moved = moved;
  run_inproc(
      static_cast<int>(nodes.size()),
      [&](Group& flat_group) {
        NodeOptions node_options;
        node_options.moved = &moved[static_cast<size_t>(flat_group.rank())];
        HierarchicalGroup group(flat_group, nodes, node_options);
        testing::check_moved_bytes(group, *node_options.moved, testing::MovedClosedForm::kNodesAndLanes);
        flat_group.barrier(kHere, "end of test");
      },
      options);
}

/// Bits that depend on grouping and order if anything does: floats of mixed size, NaNs with payloads, zeros of both
/// signs, integers that overflow.
template <typename T>
std::vector<T> odd_values(int rank, int64_t elements) {
  std::vector<T> values(static_cast<size_t>(elements));
  uint64_t state = static_cast<uint64_t>(rank) * 977 + 5;
  for (T& v : values) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    if constexpr (std::is_floating_point_v<T>) {
      v = static_cast<T>(static_cast<double>(static_cast<int64_t>(state)) / 1e9);
      if (state >> 60 == 3) v = std::numeric_limits<T>::quiet_NaN();
      if (state >> 60 == 4) v = T{0};
      if (state >> 60 == 5) v = -T{0};
    } else {
      v = static_cast<T>(state);
    }
  }
  return values;
}

template <typename T>
void check_same_bits(Group& flat_group, Group& group, ReduceOp op, int64_t unit) {
  std::vector<int64_t> counts;
  for (int r = 0; r < group.size(); ++r) counts.push_back(r == 1 ? 0 : unit + 5 * r);
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  const auto own = static_cast<size_t>(counts[static_cast<size_t>(group.rank())]);
  std::vector<std::vector<T>> results;
  for (Group* backend : {&flat_group, &group}) {
    std::vector<T> all = odd_values<T>(group.rank(), total);
    std::vector<T> part(own);
    backend->reduce_scatter(flat(std::span(all)), flat(std::span(part)), counts, op, kHere, "r");
    backend->all_gather(flat(std::span(part)), flat(std::span(all)), counts, kHere, "g");
    std::vector<T> again = odd_values<T>(group.rank(), total);
    backend->all_reduce(flat(std::span(again)), flat(std::span(again)), op, kHere, "a");
    EXPECT_EQ(std::memcmp(all.data(), again.data(), all.size() * sizeof(T)), 0);
    results.push_back(std::move(all));
  }
  EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(T)), 0)
      << to_string(op) << " of " << to_string(DTypeOf<T>::value) << ", " << total << " elements";
}

TEST_P(HierarchicalGroupTest, TheBitsOfTheFlatGroup) {
  const std::vector<int>& nodes = GetParam().node_of_rank;
  run_inproc(static_cast<int>(nodes.size()), [&](Group& flat_group) {
    const auto second = flat_group.split(0, flat_group.rank(), "compared");
    HierarchicalGroup group(*second, nodes, {});
    for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin})
      for (const int64_t unit : {1, 70'000}) {  // the last takes several rounds of every scratch
        check_same_bits<int64_t>(flat_group, group, op, unit);
        check_same_bits<float>(flat_group, group, op, unit);
        check_same_bits<double>(flat_group, group, op, unit);
      }
    flat_group.barrier(kHere, "end of test");
  });
}

INSTANTIATE_TEST_SUITE_P(Nodes, HierarchicalGroupTest,
                         ::testing::Values(Nodes{"OneRank", {0}, true}, Nodes{"OneNode", {0, 0, 0}, true},
                                           Nodes{"TwoOfOne", {0, 1}, true}, Nodes{"TwoOfTwo", {0, 0, 1, 1}, true},
                                           Nodes{"TwoOfFour", {1, 1, 1, 1, 0, 0, 0, 0}, true},
                                           Nodes{"ThreeOfTwo", {0, 0, 1, 1, 2, 2}, true},
                                           Nodes{"Uneven", {0, 0, 0, 1}, false},
                                           Nodes{"Alternating", {0, 1, 0, 1}, false}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(HierarchicalGroup, EachByteCrossesHostsOncePerLane) {
  constexpr int64_t kPart = 50'000;  // i64 elements
  const std::vector<int> nodes = {0, 0, 1, 1};
  std::vector<MovedBytes> crossed(4);  // lanes belong to the flat groups
  InprocOptions options;
  options.moved = crossed;
  run_inproc(
      4,
      [&](Group& flat_group) {
        HierarchicalGroup group(flat_group, nodes, {});
        const MovedBytes& own = crossed[static_cast<size_t>(group.rank())];
        std::vector<int64_t> all(4 * kPart, group.rank());
        const Tensor whole = flat(std::span(all));
        const Tensor part = flat(std::span(all).subspan(static_cast<size_t>(group.rank() * kPart), kPart));
        int64_t before = own.total();
        group.all_gather(part, whole, {}, kHere, "g");
        EXPECT_EQ(own.total() - before, kPart * 8);  // flat: two parts of the other node
        before = own.total();
        group.reduce_scatter(whole, part, {}, ReduceOp::kSum, kHere, "r");
        EXPECT_EQ(own.total() - before, kPart * 8);  // flat: this part from two ranks of the other node
        before = own.total();
        group.all_reduce(whole, whole, ReduceOp::kSum, kHere, "a");
        EXPECT_EQ(own.total() - before, 2 * kPart * 8);  // half of the tensor, by halves and back
        before = own.total();
        group.broadcast(whole, 3, kHere, "b");
        EXPECT_EQ(own.total() - before, group.rank() == 1 ? 4 * kPart * 8 : 0);
        flat_group.barrier(kHere, "end of test");
      },
      options);
}

TEST(HierarchicalGroup, RanksOfThisMachineAreOneNode) {
  run_inproc(3, [](Group& group) { EXPECT_EQ(find_nodes(group), (std::vector<int>{0, 0, 0})); });
}

TEST(HierarchicalGroup, RefusesAMapOfAnotherSize) {
  const auto group = make_solo_group();
  EXPECT_TRUE(testing::throws_error(
      [&] {
        HierarchicalGroup(*group, {0, 1}, {});
      },
      ErrorKind::kInvalidArgument, {"one entry per rank (1); got 2"}));
}

}  // namespace
}  // namespace permafrost
