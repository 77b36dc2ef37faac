// Run by mpirun: MPI's own collectives behind Group. Every rank runs every test.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "parallel/group/fail_together.h"
#include "parallel/group/mpi_loader.h"
#include "tests/support/compare.h"

namespace permafrost {
namespace {

using testing::make_tensor;
using testing::OwnedTensor;
using testing::throws_error;
using testing::values_of;

const StreamView kCaller = StreamView::caller();
Group* plain = nullptr;

double value(int rank, int64_t i) { return static_cast<double>((7 * rank + 3 * i) % 50); }

std::vector<int64_t> parts(bool uneven) {
  std::vector<int64_t> counts;
  for (int r = 0; r < plain->size(); ++r) counts.push_back(uneven ? 5 * r : 8);  // rank 0 may have nothing
  return counts;
}

int64_t sum(const std::vector<int64_t>& counts, int ranks) {
  return std::accumulate(counts.begin(), counts.begin() + ranks, int64_t{0});
}

TEST(PlainMpiGroup, GathersInAndOutOfPlace) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI64, DType::kI32, DType::kU8})
    for (const bool uneven : {false, true})
      for (const bool in_place : {false, true}) {
        const std::vector<int64_t> counts = parts(uneven);
        const int64_t total = sum(counts, plain->size()), begin = sum(counts, plain->rank());
        const int64_t own = counts[static_cast<size_t>(plain->rank())];
        const OwnedTensor all = testing::filled_tensor(dtype, Shape({total}), 0x11);
        std::vector<double> mine, want;
        for (int64_t i = 0; i < own; ++i) mine.push_back(value(plain->rank(), i));
        for (int r = 0; r < plain->size(); ++r)
          for (int64_t i = 0; i < counts[static_cast<size_t>(r)]; ++i) want.push_back(value(r, i));
        const OwnedTensor apart = make_tensor(dtype, Shape({own}), mine);
        const Tensor place = all.view().rows(begin, begin + own);
        if (in_place) std::memcpy(place.raw(), apart.view().raw(), static_cast<size_t>(place.bytes()));
        plain->all_gather(in_place ? place : apart.view(), all, uneven ? counts : std::vector<int64_t>{}, kCaller, "g");
        EXPECT_EQ(values_of(all), want) << to_string(dtype) << uneven << in_place;
        EXPECT_TRUE(all.canaries_intact());
      }
}

TEST(PlainMpiGroup, Reduces) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kI64, DType::kI32, DType::kU8})
    for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin})
      for (const bool uneven : {false, true}) {
        const std::vector<int64_t> counts = parts(uneven);
        const int64_t total = sum(counts, plain->size()), begin = sum(counts, plain->rank());
        const int64_t own = counts[static_cast<size_t>(plain->rank())];
        std::vector<double> mine, want;
        for (int64_t i = 0; i < total; ++i) {
          mine.push_back(value(plain->rank(), i));
          double result = value(0, i);
          for (int r = 1; r < plain->size(); ++r)
            result = op == ReduceOp::kSum   ? result + value(r, i)
                     : op == ReduceOp::kMax ? std::max(result, value(r, i))
                                            : std::min(result, value(r, i));
          want.push_back(result);
        }
        const OwnedTensor in = make_tensor(dtype, Shape({total}), mine);
        const OwnedTensor part = testing::filled_tensor(dtype, Shape({own}), 0x11);
        plain->reduce_scatter(in, part, uneven ? counts : std::vector<int64_t>{}, op, kCaller, "s");
        EXPECT_EQ(values_of(part), (std::vector<double>{want.begin() + begin, want.begin() + begin + own}));
        const OwnedTensor out = testing::filled_tensor(dtype, Shape({total}), 0x11);
        plain->all_reduce(in, out, op, kCaller, "r");
        EXPECT_EQ(values_of(out), want) << to_string(dtype) << to_string(op) << uneven;
        plain->all_reduce(in, in, op, kCaller, "in place");
        EXPECT_EQ(values_of(in), want);
        EXPECT_TRUE(in.canaries_intact() && out.canaries_intact() && part.canaries_intact());
      }
}

TEST(PlainMpiGroup, RefusesCountsThatMpiCannotHold) {
  // Refused before anything is touched, so no memory of that size is needed.
  std::byte byte{};
  const int64_t n = plain->size(), part = (int64_t{1} << 31) / n + n;
  const Tensor all(&byte + 1, DType::kU8, Shape({part * n}));
  const Tensor far(reinterpret_cast<std::byte*>(intptr_t{1} << 44), DType::kU8, Shape({part}));
  const Tensor far_all(far.raw(), DType::kU8, Shape({part * n}));
  const std::vector<std::string> words{"plain MPI counts at most 2147483647 elements; got " + std::to_string(part * n)};
  const auto refused = [&](const std::function<void()>& call) {
    return throws_error(call, ErrorKind::kInvalidArgument, words);
  };
  EXPECT_TRUE(refused([&] { plain->all_gather(far, all, {}, kCaller, "large"); }));
  EXPECT_TRUE(refused([&] { plain->reduce_scatter(all, far, {}, ReduceOp::kSum, kCaller, "large"); }));
  EXPECT_TRUE(refused([&] { plain->all_reduce(all, far_all, ReduceOp::kSum, kCaller, "large"); }));
}

TEST(PlainMpiGroup, RefusesAPartInPlace) {
  std::vector<int32_t> all(static_cast<size_t>(plain->size()));
  const auto own = std::span(all).subspan(static_cast<size_t>(plain->rank()), 1);
  EXPECT_TRUE(throws_error(
      [&] { plain->reduce_scatter(flat(std::span(all)), flat(own), {}, ReduceOp::kSum, kCaller, "mine"); },
      ErrorKind::kInvalidArgument, {"reduce_scatter 'mine': plain MPI needs a part outside of the whole"}));
}

TEST(PlainMpiGroup, HasNoOtherMethods) {
  int32_t one = 0;
  const Tensor tensor = flat(std::span(&one, 1));
  const std::array<std::pair<const char*, std::function<void()>>, 5> others{{
      {"split", [&] { plain->split(0, 0, "x"); }},
      {"barrier", [&] { plain->barrier(kCaller, "x"); }},
      {"broadcast", [&] { plain->broadcast(tensor, 0, kCaller, "x"); }},
      {"send", [&] { plain->send(tensor, 0, kCaller, "x"); }},
      {"recv", [&] { plain->recv(tensor, 0, kCaller, "x"); }},
  }};
  for (const auto& [name, call] : others)
    EXPECT_TRUE(throws_error(call, ErrorKind::kNotBuilt,
                             {"all_gather, reduce_scatter and all_reduce are all there is; got " + std::string(name)}));
}

}  // namespace
}  // namespace permafrost

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto environment = permafrost::open_mpi();
  return permafrost::fail_together(environment->world(), [&] {
    auto group = environment->plain();
    permafrost::plain = group.get();
    int64_t failed = RUN_ALL_TESTS();
    permafrost::Group& world = environment->world();
    const permafrost::Tensor tensor = permafrost::flat(std::span(&failed, 1));
    world.all_reduce(tensor, tensor, permafrost::ReduceOp::kMax, permafrost::StreamView::caller(), "test result");
    if (failed) permafrost::fail(permafrost::ErrorKind::kInternal, "tests failed on at least one rank");
    group.reset();
    environment->close();
  });
}
