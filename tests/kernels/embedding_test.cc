#include "core/kernels/embedding.h"

#include <cmath>

#include "tests/kernels/dtypes.h"
#include "tests/reference/embedding_ref.h"
#include "tests/support/compare.h"
#include "tests/support/gradient_check.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class EmbeddingTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Targets, EmbeddingTest, ::testing::Values(kCpu, Target::kCuda), target_name);

OwnedTensor ids_tensor(const std::vector<int32_t>& ids) {
  return make_tensor(DType::kI32, {static_cast<int64_t>(ids.size())}, {ids.begin(), ids.end()});
}

std::vector<int32_t> random_ids(size_t count, int64_t vocabulary) {
  Random random(7, RandomPurpose::kSynthetic);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random.next_below(static_cast<uint64_t>(vocabulary)));
  return ids;
}

TEST_P(EmbeddingTest, LooksRowsUpForEveryDtype) {
  for (DType table_dtype : {DType::kF32, DType::kBF16, DType::kF16})
    for (DType out_dtype : tested_dtypes())
      for (int64_t width : {1, 7, 33, 768}) {
        const std::vector<int32_t> ids = random_ids(41, 13);
        const auto table = random_tensor(table_dtype, {13, width}, 1);
        auto out = filled_tensor(out_dtype, {41, width}, 0xff);
        embedding_forward(device_context(2), ids_tensor(ids), table, out);
        const auto want = reference::embedding(ids, values_of(table), static_cast<size_t>(width));
        // A copy, rounded once at most.
        EXPECT_TRUE(same_bits(out, make_tensor(out_dtype, {41, width}, want)));
        EXPECT_TRUE(out.canaries_intact());
      }
}

TEST(Embedding, GradientFormulaAgreesWithDuals) {
  const std::vector<int32_t> ids{2, 0, 2, 1, 2};
  const std::vector<double> table = values_of(random_tensor(DType::kF64, {4, 3}, 1));
  const std::vector<double> dout = values_of(random_tensor(DType::kF64, {5, 3}, 2));
  EXPECT_TRUE(gradient_agrees(
      reference::embedding_gradient(ids, dout, std::vector<double>(12), 3),
      [&](const auto& x) { return reference::embedding(ids, x, 3); }, table, dout));
}

TEST_P(EmbeddingTest, BackwardAddsRepeatedIds) {
  for (DType dtype : tested_dtypes())
    for (int64_t width : {1, 63, 65, 200})
      for (GradMode mode : {GradMode::kOverwrite, GradMode::kAdd}) {
        const std::vector<int32_t> ids = random_ids(50, 6);  // every row about eight times, row 6 never
        const auto dout = random_tensor(dtype, {50, width}, 1);
        auto dtable = random_tensor(DType::kF32, {7, width}, 2);
        const auto base = mode == GradMode::kAdd ? values_of(dtable) : std::vector<double>(size_t(7 * width));
        embedding_backward(device_context(2), ids_tensor(ids), dout, dtable, mode);
        const auto want = reference::embedding_gradient(ids, values_of(dout), base, static_cast<size_t>(width));
        EXPECT_TRUE(all_close(dtable, want, tolerance_for(DType::kF32, 20, 20)));
        EXPECT_TRUE(dtable.canaries_intact());
      }
}

TEST_P(EmbeddingTest, SameBitsForAnyNumberOfThreads) {
  const auto ids = ids_tensor(random_ids(300, 11));
  const auto table = random_tensor(DType::kBF16, {11, 300}, 1), dout = random_tensor(DType::kBF16, {300, 300}, 2);
  std::vector<OwnedTensor> outs, gradients;
  for (int threads : {1, 2, 3}) {
    outs.push_back(filled_tensor(DType::kF32, {300, 300}, 0));
    gradients.push_back(random_tensor(DType::kF32, {11, 300}, 3));
    embedding_forward(device_context(threads), ids, table, outs.back());
    embedding_backward(device_context(threads), ids, dout, gradients.back(), GradMode::kAdd);
    EXPECT_TRUE(same_bits(outs.back(), outs.front()));
    EXPECT_TRUE(same_bits(gradients.back(), gradients.front()));
  }
}

TEST_P(EmbeddingTest, EmptySizes) {
  auto dtable = filled_tensor(DType::kF32, {4, 3}, 0xff);
  embedding_forward(device_context(), ids_tensor({}), dtable, OwnedTensor(DType::kF32, {0, 3}));
  embedding_backward(device_context(), ids_tensor({}), OwnedTensor(DType::kF32, {0, 3}), dtable, GradMode::kOverwrite);
  EXPECT_TRUE(all_close(dtable, std::vector<double>(12), {}));
  embedding_forward(device_context(), ids_tensor({3}), OwnedTensor(DType::kF32, {4, 0}),
                    OwnedTensor(DType::kF32, {1, 0}));
}

TEST_P(EmbeddingTest, NanStaysInItsRow) {
  const auto table = make_tensor(DType::kF32, {2, 2}, {1, NAN, 3, 4});
  OwnedTensor out(DType::kBF16, {2, 2});
  embedding_forward(device_context(), ids_tensor({1, 0}), table, out);
  const std::vector<double> got = values_of(out);
  EXPECT_EQ(got[0], 3);
  EXPECT_EQ(got[1], 4);
  EXPECT_TRUE(std::isnan(got[3]));
}

TEST_P(EmbeddingTest, Errors) {
  const Context c = device_context();
  const OwnedTensor table(DType::kF32, {5, 3}), out(DType::kF32, {3, 3});
  const auto ids = ids_tensor({0, 4, 0});
  const auto call = [&](Tensor i, Tensor t, Tensor o) { return [=] { embedding_forward(c, i, t, o); }; };
  const auto shape = ErrorKind::kShapeMismatch, argument = ErrorKind::kInvalidArgument;
  EXPECT_TRUE(throws_error(call(ids_tensor({0, 5, -1}), table, out), argument,
                           {"embedding: ids must lie in 0..4; got 5 at row 1"}));
  EXPECT_TRUE(throws_error(call(ids_tensor({0, 0, -1}), table, out), argument, {"got -1 at row 2"}));
  EXPECT_TRUE(throws_error(call(OwnedTensor(DType::kI64, {3}), table, out), shape,
                           {"embedding_forward: ids must be (R) i32; got (3) i64"}));
  EXPECT_TRUE(
      throws_error(call(ids, OwnedTensor(DType::kF32, {5}), out), shape, {"table must be (V, C)", "got (5) f32"}));
  const char* dtypes = on_cuda() ? "f32, bf16 or f16" : "f32 or bf16";
  EXPECT_TRUE(throws_error(call(ids, table, OwnedTensor(DType::kF64, {3, 3})), shape,
                           {"out must be (3, 3) ", dtypes, "; got (3, 3) f64"}));
  EXPECT_TRUE(throws_error(call(ids, table, Tensor()), shape, {"out must be (3, 3) ", dtypes, "; got none"}));
  if (!on_cuda()) {
    EXPECT_TRUE(throws_error(call(ids, table, OwnedTensor(kF16, {3, 3})), shape, {"got (3, 3) f16"}));
  }
  const auto back = [&](Tensor i, Tensor d, Tensor t) {
    return [=] { embedding_backward(c, i, d, t, GradMode::kAdd); };
  };
  EXPECT_TRUE(throws_error(back(ids_tensor({0, 9, 0}), out, table), argument, {"embedding: ids", "got 9 at row 1"}));
  EXPECT_TRUE(throws_error(back(ids, out, OwnedTensor(DType::kBF16, {5, 3})), shape, {"dtable must be (V, C) f32"}));
  EXPECT_TRUE(
      throws_error(back(ids, OwnedTensor(DType::kF32, {2, 3}), table), shape, {"dout must be (3, 3)", "got (2, 3)"}));
  Context other = c;
  other.device = Device::cuda(1);
  EXPECT_TRUE(
      throws_error([&] { embedding_forward(other, ids, table, out); }, shape, {"ids must be on device cuda:1; got"}));
}

}  // namespace
}  // namespace permafrost
