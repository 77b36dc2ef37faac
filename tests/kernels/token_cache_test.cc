#include "core/kernels/token_cache.h"

#include "tests/kernels/dtypes.h"
#include "tests/reference/token_cache_ref.h"
#include "tests/support/compare.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class TokenCacheTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, TokenCacheTest, ::testing::Values(kCpu, Target::kCuda), target_name);

OwnedTensor numbers(const std::vector<int32_t>& values) {
  return make_tensor(DType::kI32, {std::ssize(values)}, {values.begin(), values.end()});
}

TEST_P(TokenCacheTest, WritesWhereItIsTold) {
  // Two samples of one token, two rows each, three places of one number.
  OwnedTensor cache = make_tensor(DType::kF32, {4, 3, 1}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  const OwnedTensor x = make_tensor(DType::kF32, {2, 1, 1}, {5, 7});
  write_tokens(device_context(), x, numbers({2, 0}), cache);
  EXPECT_EQ(values_of(cache), (std::vector<double>{0, 0, 5, 0, 0, 5, 7, 0, 0, 7, 0, 0}));
  select_rows(device_context(), numbers({2, 0, 2, 2}), numbers({2, 3, 1, 3}), cache,
              filled_tensor(DType::kU8, {select_rows_workspace_bytes(cache.view().spec())}, 0xff));
  EXPECT_EQ(values_of(cache), (std::vector<double>{7, 0, 5, 0, 0, 5, 7, 0, 0, 7, 0, 0}));
}

TEST_P(TokenCacheTest, AgreesWithTheReferenceOnAnyNumberOfThreads) {
  for (const DType dtype : tested_dtypes())
    for (const int64_t width : {1, 7, 33, 64})
      for (const int64_t copies : {1, 3})
        for (const int64_t t : {1, 2, 5}) {
          const std::vector<int32_t> positions{1, 0, 4}, lengths{3, 9, 0, 5, 1, 2, 4, 9, 7};
          const std::vector<int32_t> from =
              copies == 1 ? std::vector<int32_t>{2, 0, 0} : std::vector<int32_t>{2, 0, 2, 4, 4, 3, 6, 8, 7};
          const auto rows = 3 * copies;
          const OwnedTensor x = random_tensor(dtype, {3, t, width}, 1),
                            start = random_tensor(dtype, {rows, 9, width}, 2);
          const std::vector<int32_t> used(lengths.begin(), lengths.begin() + rows);
          const auto written =
              reference::write_tokens(values_of(start), values_of(x), positions, static_cast<size_t>(rows), 9,
                                      static_cast<size_t>(t), static_cast<size_t>(width));
          const auto selected = reference::select_rows(written, from, used, 9, static_cast<size_t>(width));
          for (const int threads : {1, 2}) {
            OwnedTensor cache = start;
            write_tokens(device_context(threads), x, numbers(positions), cache);
            EXPECT_TRUE(same_bits(cache, make_tensor(dtype, {rows, 9, width}, written)));
            OwnedTensor workspace = filled_tensor(DType::kU8, {select_rows_workspace_bytes(cache.view().spec())}, 0xff);
            select_rows(device_context(threads), numbers(from), numbers(used), cache, workspace);
            EXPECT_TRUE(same_bits(cache, make_tensor(dtype, {rows, 9, width}, selected)));
            EXPECT_TRUE(cache.canaries_intact() && workspace.canaries_intact());
          }
        }
}

TEST_P(TokenCacheTest, EmptySizesDoNothing) {
  OwnedTensor cache = filled_tensor(DType::kF32, {2, 3, 4}, 0);
  EXPECT_NO_THROW(write_tokens(device_context(), filled_tensor(DType::kF32, {2, 0, 4}, 0), numbers({3, 0}), cache));
  EXPECT_NO_THROW(write_tokens(device_context(), filled_tensor(DType::kF32, {0, 1, 4}, 0), numbers({}),
                               filled_tensor(DType::kF32, {0, 3, 4}, 0)));
  EXPECT_NO_THROW(
      select_rows(device_context(), numbers({1, 0}), numbers({0, 0}), cache, filled_tensor(DType::kU8, {96}, 0)));
}

TEST_P(TokenCacheTest, RefusesWhatDoesNotFit) {
  const OwnedTensor cache = filled_tensor(DType::kF32, {4, 3, 2}, 0), x = filled_tensor(DType::kF32, {2, 2, 2}, 0);
  const auto refuses = [&](const Tensor& tokens, const Tensor& positions, ErrorKind kind,
                           const std::vector<std::string>& parts) {
    EXPECT_TRUE(throws_error([&] { write_tokens(device_context(), tokens, positions, cache); }, kind, parts));
  };
  refuses(filled_tensor(DType::kF32, {3, 1, 2}, 0), numbers({0, 0, 0}), ErrorKind::kShapeMismatch,
          {"write_tokens: cache must be (n B, S, C)"});
  refuses(filled_tensor(DType::kF32, {2, 4, 2}, 0), numbers({0, 0}), ErrorKind::kShapeMismatch, {"S of at least t"});
  refuses(filled_tensor(DType::kBF16, {2, 1, 2}, 0), numbers({0, 0}), ErrorKind::kShapeMismatch, {"cache"});
  refuses(x, numbers({0}), ErrorKind::kShapeMismatch, {"positions must be (2) i32"});
  refuses(x, numbers({0, 2}), ErrorKind::kInvalidArgument,
          {"write_tokens: positions must lie in 0..1; got 2 at row 1"});
  refuses(x, numbers({-1, 0}), ErrorKind::kInvalidArgument, {"got -1 at row 0"});
  const OwnedTensor workspace = filled_tensor(DType::kU8, {96}, 0);
  EXPECT_TRUE(throws_error(
      [&] {
        select_rows(device_context(), numbers({0, 1, 4, 3}), numbers({0, 0, 0, 0}), cache, workspace);
      },
      ErrorKind::kInvalidArgument, {"select_rows: rows must lie in 0..3; got 4 at row 2"}));
  EXPECT_TRUE(throws_error(
      [&] {
        select_rows(device_context(), numbers({0, 1, 2, 3}), numbers({0, 0, 0, 4}), cache, workspace);
      },
      ErrorKind::kInvalidArgument, {"select_rows: lengths must lie in 0..3; got 4 at row 3"}));
  EXPECT_TRUE(throws_error(
      [&] {
        select_rows(device_context(), numbers({0, 1, 2, 3}), numbers({0, 0, 0, 0}), cache,
                    filled_tensor(DType::kU8, {95}, 0));
      },
      ErrorKind::kShapeMismatch, {"workspace must have at least 96 bytes; got 95"}));
}

}  // namespace
}  // namespace permafrost
