#include "tests/group/conformance.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/check.h"
#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

struct Case {
  std::string name;
  DType dtype;
  std::vector<int64_t> counts;  // explicit, one per rank
  bool pass_counts;             // else the span is empty and the counts are equal
  bool in_place;
};

int64_t sum(const std::vector<int64_t>& counts) {
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  return total;
}

int64_t offset(const std::vector<int64_t>& counts, int rank) {
  int64_t total = 0;
  for (int r = 0; r < rank; ++r) total += counts[static_cast<size_t>(r)];
  return total;
}

/// Small integers: exact in every dtype, different for every rank and place, negative ones where the dtype has them.
double value(int rank, int64_t i, DType dtype) {
  const auto v = static_cast<double>((rank * 7 + i * 5 + 3) % 23);
  return dtype == DType::kU8 ? v : v - 9;
}

std::vector<double> values(int rank, int64_t elements, DType dtype) {
  std::vector<double> result;
  for (int64_t i = 0; i < elements; ++i) result.push_back(value(rank, i, dtype));
  return result;
}

double reduced(ReduceOp op, int64_t i, DType dtype, int rank, int size, Others others) {
  if (others == Others::kSilent) return value(rank, i, dtype);
  double result = value(0, i, dtype);
  for (int r = 1; r < size; ++r) {
    const double v = value(r, i, dtype);
    result = op == ReduceOp::kSum ? result + v : op == ReduceOp::kMax ? std::max(result, v) : std::min(result, v);
  }
  return result;
}

std::span<const int64_t> span_of(const Case& c) {
  return c.pass_counts ? std::span<const int64_t>(c.counts) : std::span<const int64_t>();
}

/// `values` at element `at` of a tensor, `count` of them.
Tensor piece(const Tensor& all, int64_t at, int64_t count) {
  return {static_cast<std::byte*>(all.raw()) + at * size_of(all.dtype()), all.dtype(), Shape({count}), all.device()};
}

void check_gather(Group& group, Others others, const Case& c, StreamView stream) {
  const int64_t own = c.counts[static_cast<size_t>(group.rank())];
  const int64_t at = offset(c.counts, group.rank());
  OwnedTensor all = filled_tensor(c.dtype, Shape({sum(c.counts)}), 0x5a);
  OwnedTensor source = make_tensor(c.dtype, Shape({own}), values(group.rank(), own, c.dtype));
  Tensor part = source;
  if (c.in_place) {
    part = piece(all, at, own);
    std::copy_n(static_cast<std::byte*>(source.view().raw()), part.bytes(), static_cast<std::byte*>(part.raw()));
  }
  group.all_gather(part, all, span_of(c), stream, "gather test").wait();
  std::vector<double> want;
  for (int r = 0; r < group.size(); ++r)
    for (int64_t i = 0; i < c.counts[static_cast<size_t>(r)]; ++i)
      want.push_back(others == Others::kSilent && r != group.rank() ? 0 : value(r, i, c.dtype));
  EXPECT_TRUE(all_close(all, want, {})) << "all_gather, " << c.name;
  EXPECT_TRUE(all.canaries_intact() && source.canaries_intact()) << "all_gather, " << c.name;
}

void check_reduce_scatter(Group& group, Others others, const Case& c, ReduceOp op, StreamView stream) {
  const int64_t own = c.counts[static_cast<size_t>(group.rank())];
  const int64_t at = offset(c.counts, group.rank());
  const int64_t total = sum(c.counts);
  OwnedTensor all = make_tensor(c.dtype, Shape({total}), values(group.rank(), total, c.dtype));
  OwnedTensor target = filled_tensor(c.dtype, Shape({own}), 0x5a);
  const Tensor part = c.in_place ? piece(all, at, own) : target.view();
  group.reduce_scatter(all, part, span_of(c), op, stream, "reduce test").wait();
  std::vector<double> want;
  for (int64_t i = 0; i < own; ++i) want.push_back(reduced(op, at + i, c.dtype, group.rank(), group.size(), others));
  const std::string what = concat("reduce_scatter by ", to_string(op), ", ", c.name);
  EXPECT_TRUE(all_close(part, want, {})) << what;
  EXPECT_TRUE(all.canaries_intact() && target.canaries_intact()) << what;
}

void check_all_reduce(Group& group, Others others, const Case& c, ReduceOp op, StreamView stream) {
  const int64_t total = sum(c.counts);
  OwnedTensor in = make_tensor(c.dtype, Shape({total}), values(group.rank(), total, c.dtype));
  OwnedTensor out = filled_tensor(c.dtype, Shape({total}), 0x5a);
  const Tensor target = c.in_place ? in.view() : out.view();
  group.all_reduce(in, target, op, stream, "all_reduce test").wait();
  std::vector<double> want;
  for (int64_t i = 0; i < total; ++i) want.push_back(reduced(op, i, c.dtype, group.rank(), group.size(), others));
  EXPECT_TRUE(all_close(target, want, {})) << "all_reduce by " << to_string(op) << ", " << c.name;
  EXPECT_TRUE(in.canaries_intact() && out.canaries_intact());
}

void check_broadcast(Group& group, Others others, const Case& c, StreamView stream) {
  const int64_t total = sum(c.counts);
  for (int root = 0; root < group.size(); ++root) {
    OwnedTensor data = make_tensor(c.dtype, Shape({total}), values(group.rank(), total, c.dtype));
    group.broadcast(data, root, stream, "broadcast test").wait();
    const int from = others == Others::kSilent ? group.rank() : root;
    EXPECT_TRUE(all_close(data, values(from, total, c.dtype), {})) << "broadcast from " << root << ", " << c.name;
    EXPECT_TRUE(data.canaries_intact());
  }
}

bool reducible(DType dtype) { return dtype != DType::kBF16 && dtype != DType::kF16; }

void check_case(Group& group, Others others, const Case& c, StreamView stream) {
  check_gather(group, others, c, stream);
  check_broadcast(group, others, c, stream);
  if (!reducible(c.dtype)) return;
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
    check_reduce_scatter(group, others, c, op, stream);
    check_all_reduce(group, others, c, op, stream);
  }
}

std::vector<Case> all_cases(int size) {
  std::vector<Case> cases;
  const auto add = [&](const std::string& name, auto count_of, bool pass) {
    std::vector<int64_t> counts;
    for (int r = 0; r < size; ++r) counts.push_back(count_of(r));
    for (const DType dtype :
         {DType::kU8, DType::kI32, DType::kI64, DType::kF32, DType::kF64, DType::kBF16, DType::kF16})
      for (const bool in_place : {false, true})
        cases.push_back(
            {concat(name, " ", to_string(dtype), in_place ? " in place" : ""), dtype, counts, pass, in_place});
  };
  add(
      "equal", [](int) { return 5; }, false);
  add(
      "uneven", [](int r) { return 3 + 4 * r; }, true);
  add(
      "some empty", [](int r) { return r % 2 == 0 ? 0 : 7; }, true);
  add(
      "only first", [](int r) { return r == 0 ? 11 : 0; }, true);
  add(
      "all empty", [](int) { return 0; }, true);
  add(
      "no elements", [](int) { return 0; }, false);
  add(
      "long", [](int r) { return 3000 + 41 * r; }, true);  // beyond the small all_reduce
  return cases;
}

}  // namespace

void check_collectives(Group& group, Others others) {
  for (const Case& c : all_cases(group.size())) check_case(group, others, c, kHere);
  for (int i = 0; i < 20; ++i) group.barrier(kHere, "barrier test").wait();
  EXPECT_FALSE(group.async_error().has_value());
}

void check_streams(Group& group, Others others) {
  Stream stream(used_device());
  for (const Case& c : all_cases(group.size()))
    if (c.dtype == DType::kF32 || c.dtype == DType::kI64) check_case(group, others, c, stream);
  // Several calls queued behind each other, no wait between them.
  const OwnedTensor values = make_tensor(DType::kI64, Shape({8}), std::vector<double>(8, 1));
  std::vector<Event> events;
  for (int i = 0; i < 8; ++i) {
    const Tensor one = piece(values, i, 1);
    events.push_back(group.all_reduce(one, one, ReduceOp::kSum, stream, "queued"));
  }
  for (const Event& event : events) event.wait();
  for (const double v : values_of(values)) EXPECT_EQ(v, others == Others::kSilent ? 1 : group.size());
}

void check_point_to_point(Group& group) {
  if (group.size() == 1) return;
  const int next = (group.rank() + 1) % group.size();
  const int previous = (group.rank() + group.size() - 1) % group.size();
  for (const int64_t elements : {0, 1, 5000}) {
    OwnedTensor out = make_tensor(DType::kBF16, Shape({elements}), values(group.rank(), elements, DType::kBF16));
    OwnedTensor in = filled_tensor(DType::kBF16, Shape({elements}), 0x5a);
    // Even ranks send first: a send may complete only when its receiver has come.
    const bool first = group.rank() % 2 == 0;
    if (first) group.send(out, next, kHere, "ring");
    group.recv(in, previous, kHere, "ring");
    if (!first) group.send(out, next, kHere, "ring");
    EXPECT_TRUE(all_close(in, values(previous, elements, DType::kBF16), {}));
    EXPECT_TRUE(in.canaries_intact());
  }
}

void check_moved_bytes(Group& group, const MovedBytes& moved, MovedClosedForm form) {
  const int size = group.size();
  const int rank = group.rank();
  const auto moved_by = [&](const auto& calls) {
    const int64_t before = moved.total();
    calls();
    group.barrier(kHere, "counted").wait();  // barriers count nothing
    return moved.total() - before;
  };
  for (const int64_t unit : {int64_t{1}, int64_t{700}, int64_t{90'001}}) {
    std::vector<int64_t> counts;
    for (int r = 0; r < size; ++r) counts.push_back(r == 1 ? 0 : unit + 3 * r);
    const int64_t total = sum(counts);
    const int64_t own = counts[static_cast<size_t>(rank)];
    const OwnedTensor whole_memory =
        make_tensor(DType::kI64, Shape({total}), std::vector<double>(static_cast<size_t>(total), 1));
    const Tensor whole = whole_memory;
    const Tensor part = piece(whole, offset(counts, rank), own);
    EXPECT_EQ(moved_by([&] { group.all_gather(part, whole, counts, kHere, "g"); }), (total - own) * 8);
    if (form == MovedClosedForm::kFlat) {
      EXPECT_EQ(moved_by([&] { group.reduce_scatter(whole, part, counts, ReduceOp::kSum, kHere, "r"); }),
                (size - 1) * own * 8);
      const int64_t slice = total * (rank + 1) / size - total * rank / size;
      const int64_t twice = ((size - 1) * slice + total - slice) * 8;
      const int64_t once = (size - 1) * total * 8;
      const bool small = total * 8 <= kSmallAllReduceBytes && size > 1;
      const int64_t got = moved_by([&] { group.all_reduce(whole, whole, ReduceOp::kMax, kHere, "a"); });
      EXPECT_TRUE(got == twice || (small && got == once)) << got << " of " << total * 8 << " bytes";
    }
    EXPECT_EQ(moved_by([&] { group.broadcast(whole, size - 1, kHere, "b"); }), rank == size - 1 ? 0 : total * 8);
  }
}

void check_split(Group& group) {
  const int rank = group.rank();
  const auto reversed = group.split(0, -rank, "reversed");
  ASSERT_NE(reversed, nullptr);
  EXPECT_EQ(reversed->rank(), group.size() - 1 - rank);
  EXPECT_EQ(reversed->size(), group.size());
  const auto half = group.split(rank % 2, rank, "halves");
  ASSERT_NE(half, nullptr);
  EXPECT_EQ(half->size(), (group.size() + 1 - rank % 2) / 2);
  check_case(*half, Others::kTakePart,
             {"in a half", DType::kI64, std::vector<int64_t>(static_cast<size_t>(half->size()), 9), true, false},
             kHere);
  const auto first = group.split(rank == 0 ? 3 : -1, 0, "first alone");
  EXPECT_EQ(first == nullptr, rank != 0);
  if (first) check_collectives(*first, Others::kTakePart);
  const auto patient = group.split(0, rank, "sleeping", Waiting::kSleeping);
  ASSERT_NE(patient, nullptr);
  check_case(*patient, Others::kTakePart,
             {"sleeping", DType::kF32, std::vector<int64_t>(static_cast<size_t>(group.size()), 3000), true, true},
             kHere);
  group.barrier(kHere, "after split");
}

void check_argument_errors(Group& group) {
  const int size = group.size();
  OwnedTensor all = filled_tensor(DType::kF32, Shape({4 * size}), 0);
  OwnedTensor part = filled_tensor(DType::kF32, Shape({4}), 0);
  OwnedTensor halves = filled_tensor(DType::kBF16, Shape({4 * size}), 0);
  OwnedTensor half_part = filled_tensor(DType::kBF16, Shape({4}), 0);
  const auto invalid = ErrorKind::kInvalidArgument;
  const auto shape = ErrorKind::kShapeMismatch;
  EXPECT_TRUE(throws_error([&] { group.all_gather(half_part, all, {}, kHere, "t"); }, shape,
                           {"all_gather 't'", "one dtype", "bf16 and f32"}));
  EXPECT_TRUE(throws_error([&] { group.reduce_scatter(halves, half_part, {}, ReduceOp::kSum, kHere, "t"); }, shape,
                           {"reduce_scatter 't'", "u8, i32, i64, f32 or f64", "bf16"}));
  const std::vector<int64_t> wrong_sum(static_cast<size_t>(size), 5);
  EXPECT_TRUE(throws_error([&] { group.all_gather(part, all, wrong_sum, kHere, "t"); }, invalid, {"must sum to"}));
  const std::vector<int64_t> too_many(static_cast<size_t>(size) + 1, 0);
  EXPECT_TRUE(
      throws_error([&] { group.all_gather(part, all, too_many, kHere, "t"); }, invalid, {"one entry per rank"}));
  std::vector<int64_t> negative(static_cast<size_t>(size), 4);
  negative[0] = -1;
  EXPECT_TRUE(throws_error([&] { group.all_gather(part, all, negative, kHere, "t"); }, invalid, {"negative", "-1"}));
  EXPECT_TRUE(throws_error([&] { group.all_gather(piece(part, 0, 3), all, {}, kHere, "t"); }, shape,
                           {"part must have 4 elements", "got 3"}));
  EXPECT_TRUE(throws_error([&] { group.broadcast(part, size, kHere, "t"); }, invalid, {"root must be a rank"}));
  EXPECT_TRUE(throws_error([&] { group.send(part, group.rank(), kHere, "t"); }, invalid, {"another rank"}));
  EXPECT_TRUE(throws_error([&] { group.recv(part, -1, kHere, "t"); }, invalid, {"source must be a rank", "-1"}));
  if (size > 1) {
    OwnedTensor odd = filled_tensor(DType::kF32, Shape({4 * size + 1}), 0);
    EXPECT_TRUE(throws_error([&] { group.all_gather(part, odd, {}, kHere, "t"); }, invalid, {"multiple of"}));
    EXPECT_TRUE(throws_error([&] { group.all_reduce(all, part, ReduceOp::kSum, kHere, "t"); }, shape,
                             {"all_reduce 't'", "as many elements"}));
    const int64_t shifted = group.rank() == 0 ? 1 : 4 * group.rank() - 1;
    EXPECT_TRUE(
        throws_error([&] { group.all_gather(piece(all, shifted, 4), all, {}, kHere, "t"); }, invalid, {"own place"}));
    EXPECT_TRUE(throws_error([&] { group.all_reduce(piece(all, 0, 4), piece(all, 1, 4), ReduceOp::kSum, kHere, "t"); },
                             invalid, {"out must be in, or lie outside it"}));
  }
  EXPECT_FALSE(group.async_error().has_value()) << "argument errors must not break the group";
}

}  // namespace permafrost::testing
