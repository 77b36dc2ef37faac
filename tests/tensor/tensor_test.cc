#include "core/tensor/tensor.h"

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(Tensor, DefaultIsUndefined) {
  const Tensor none;
  EXPECT_FALSE(none.defined());
  EXPECT_FALSE(none);
  EXPECT_EQ(none.elements(), 0);
  EXPECT_EQ(none.bytes(), 0);
  EXPECT_EQ(none.raw(), nullptr);
}

TEST(Tensor, AnEmptyTensorIsDefined) {
  const Tensor empty(nullptr, DType::kF32, {0, 3});
  EXPECT_TRUE(empty.defined());
  EXPECT_EQ(empty.elements(), 0);
  EXPECT_EQ(empty.rows(0, 0).shape(), (Shape{0, 3}));
}

TEST(Tensor, TellsWhatItIs) {
  float memory[6] = {0, 1, 2, 3, 4, 5};
  const Tensor tensor(memory, DType::kF32, {2, 3});
  EXPECT_EQ(tensor.elements(), 6);
  EXPECT_EQ(tensor.bytes(), 24);
  EXPECT_EQ(tensor.dim(-1), 3);
  EXPECT_EQ(tensor.device(), Device::cpu());
  EXPECT_EQ(tensor.data<float>()[4], 4);
  EXPECT_EQ(tensor.spec(), (TensorSpec{{2, 3}, DType::kF32}));
  EXPECT_EQ(concat(tensor.spec()), "(2, 3) f32");
  EXPECT_EQ((TensorSpec{{2, 3}, DType::kBF16}).bytes(), 12);
}

TEST(Tensor, TypedPointerMustMatch) {
  float memory[2] = {};
  const Tensor tensor(memory, DType::kF32, {2});
  EXPECT_TRUE(throws_error([&] { tensor.data<bfloat16>(); }, ErrorKind::kShapeMismatch,
                           {"must be bf16; got f32 of shape (2)"}));
  EXPECT_TRUE(throws_error([&] { tensor.data<int32_t>(); }, ErrorKind::kShapeMismatch, {"must be i32"}));
}

TEST(Tensor, ReshapedSharesMemory) {
  float memory[6] = {};
  const Tensor tensor(memory, DType::kF32, {2, 3});
  EXPECT_EQ(tensor.reshaped({6}).raw(), memory);
  EXPECT_EQ(tensor.reshaped({3, 1, 2}).shape(), (Shape{3, 1, 2}));
  EXPECT_TRUE(throws_error([&] { tensor.reshaped({4}); }, ErrorKind::kShapeMismatch, {"(2, 3)", "(4)"}));
}

TEST(Tensor, RowsAreASliceOfTheFirstAxis) {
  bfloat16 memory[24] = {};
  const Tensor tensor(memory, DType::kBF16, {4, 3, 2});
  const Tensor middle = tensor.rows(1, 3);
  EXPECT_EQ(middle.shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(middle.raw(), memory + 6);
  EXPECT_EQ(tensor.rows(4, 4).elements(), 0);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{-1, 2}, {3, 2}, {0, 5}})
    EXPECT_TRUE(throws_error([&] { tensor.rows(begin, end); }, ErrorKind::kInvalidArgument,
                             {"0..4", concat("got ", begin, "..", end)}));
}

}  // namespace
}  // namespace permafrost::testing
