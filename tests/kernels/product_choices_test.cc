// Algorithms of products on CUDA: told, handed to another stream, refused; and the kernel for products that cuBLASLt
// has no algorithm for.
#include "core/kernels/product_choices.h"

#include <cmath>

#include "core/kernels/linear.h"
#include "core/kernels/plain_matmul_cuda.h"
#include "tests/kernels/dtypes.h"
#include "tests/kernels/linear_tolerance.h"
#include "tests/reference/linear_ref.h"
#include "tests/support/kernel_test.h"

namespace permafrost {
namespace {

using namespace permafrost::testing;

class Products : public KernelTest {
 protected:
  static OwnedTensor workspace_for(int64_t m, int64_t n, int64_t k, DType compute) {
    int64_t bytes = 0;
    for (LinearPass pass : {LinearPass::kForward, LinearPass::kBackwardInput, LinearPass::kBackwardWeight})
      bytes = std::max(bytes, linear_workspace_bytes(pass, m, n, k, compute, compute, 1, DeviceKind::kCuda));
    return filled_tensor(kU8, {bytes}, 0xff);
  }
  static bool emulated() { return cuda::device_info(0).name == "emulated"; }
};
INSTANTIATE_TEST_SUITE_P(Targets, Products, ::testing::Values(Target::kCuda), target_name);

/// A column-major matrix with gaps between its columns, which starts `shift` elements behind where memory is aligned.
struct Matrix {
  int64_t rows, columns, ld, shift;
  OwnedTensor memory;
  Matrix(DType dtype, int64_t rows, int64_t columns, int64_t gap, int64_t shift, uint64_t seed)
      : rows(rows),
        columns(columns),
        ld(rows + gap),
        shift(shift),
        memory(random_tensor(dtype, {shift + columns * (rows + gap)}, seed)) {}
  void* data() const { return static_cast<std::byte*>(memory.view().raw()) + shift * size_of(memory.view().dtype()); }
  size_t index(int64_t row, int64_t column) const { return static_cast<size_t>(shift + row + column * ld); }
};

/// The product `d` computes, against sums in double: inside of D within tolerance, gaps as they were.
void expect_product(int64_t rows, int64_t columns, int64_t terms, DType in, DType out, int variant) {
  const bool ta = (variant & 1) != 0, tb = (variant & 2) != 0, add = (variant & 4) != 0, biased = (variant & 8) != 0;
  SCOPED_TRACE(concat(rows, "x", columns, "x", terms, " ", to_string(in), "->", to_string(out), " variant ", variant));
  const Matrix a(in, ta ? terms : rows, ta ? rows : terms, 3, 1, 1),
      b(in, tb ? columns : terms, tb ? terms : columns, 0, 3, 2);
  const Matrix d(out, rows, columns, 2, 1, 3), bias(out, rows, 1, 0, 0, 4);
  const std::vector<double> before = values_of(d.memory), as = values_of(a.memory), bs = values_of(b.memory),
                            biases = values_of(bias.memory);
  cuda::plain_multiply(device_context(), {.rows = rows,
                                          .columns = columns,
                                          .terms = terms,
                                          .inputs = in,
                                          .a = {a.data(), a.ld, ta},
                                          .b = {b.data(), b.ld, tb},
                                          .output = out,
                                          .d = d.data(),
                                          .ldd = d.ld,
                                          .bias = biased ? bias.data() : nullptr,
                                          .add = add});
  const std::vector<double> got = values_of(d.memory);
  std::vector<double> want = before;
  const Tolerance tolerance = product_tolerance(out, terms + 2);
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = 0; i < rows; ++i) {
      double sum = add ? before[d.index(i, j)] : 0;
      for (int64_t r = 0; r < terms; ++r)
        sum += as[ta ? a.index(r, i) : a.index(i, r)] * bs[tb ? b.index(j, r) : b.index(r, j)];
      if (biased) sum += biases[bias.index(i, 0)];
      const double bound = tolerance.absolute + tolerance.relative * std::abs(sum);
      ASSERT_LE(std::abs(got[d.index(i, j)] - sum), bound) << i << ", " << j;
      want[d.index(i, j)] = got[d.index(i, j)];
    }
  EXPECT_EQ(got, want) << "elements between columns must stay";
  EXPECT_TRUE(d.memory.canaries_intact());
}

TEST_P(Products, OwnKernelTakesEverything) {
  for (DType in : {kF32, kBF16, kF16})
    for (DType out : {kF32, kBF16, kF16})
      for (int variant = 0; variant < 16; ++variant) expect_product(5, 3, 19, in, out, variant);
  for (int variant : {0, 1, 2, 3, 12})
    for (const auto& [rows, columns, terms] :
         {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {64, 64, 16}, {67, 65, 33}, {130, 1, 47}, {2, 129, 15}})
      expect_product(rows, columns, terms, kBF16, kF32, variant);
}

/// Neither the place of a sum in its tile nor what lies beside it changes its bits.
TEST_P(Products, OwnKernelAddsInOneOrder) {
  const int64_t m = 70, n = 67, k = 131;
  const auto x = random_tensor(kBF16, {m, k}, 1), weight = random_tensor(kBF16, {n, k}, 2);
  const auto product = [&](int64_t first, int64_t rows, const OwnedTensor& to) {
    const auto* data = x.view().data<bfloat16>() + first * k;
    cuda::plain_multiply(device_context(), {.rows = n,
                                            .columns = rows,
                                            .terms = k,
                                            .inputs = kBF16,
                                            .a = {weight.view().raw(), k, true},
                                            .b = {data, k, false},
                                            .output = kF32,
                                            .d = to.view().raw(),
                                            .ldd = n});
  };
  OwnedTensor whole(kF32, {m, n}), part(kF32, {5, n}), again(kF32, {m, n});
  product(0, m, whole);
  product(0, m, again);
  product(61, 5, part);
  EXPECT_TRUE(same_bits(whole, again));
  EXPECT_TRUE(same_bits(whole.view().rows(61, 66), part));
  // One chain of FMAs, first term to last.
  const auto xs = values_of(x), ws = values_of(weight), got = values_of(whole);
  float sum = 0;
  for (size_t r = 0; r < static_cast<size_t>(k); ++r)
    sum = std::fma(static_cast<float>(ws[66 * static_cast<size_t>(k) + r]),
                   static_cast<float>(xs[3 * static_cast<size_t>(k) + r]), sum);
  EXPECT_EQ(got[3 * static_cast<size_t>(n) + 66], static_cast<double>(sum));
}

/// Through linear layers: odd widths in bf16, which the emulated library has nothing for, and a real one perhaps.
TEST_P(Products, LinearOfOddWidths) {
  const int64_t m = 33, n = 67, k = 65;
  const auto x = random_tensor(kBF16, {m, k}, 1), weight = random_tensor(kBF16, {n, k}, 2, 0.2);
  const auto dy = random_tensor(kBF16, {m, n}, 3);
  const auto bias = make_tensor(kF32, {n}, values_of(random_tensor(kBF16, {n}, 4)));  // rounded to bf16 anyway
  OwnedTensor y(kBF16, {m, n}), wide(kF32, {m, n}), dx(kBF16, {m, k}), dweight(kF32, {n, k}), dbias(kF32, {n});
  const auto workspace = workspace_for(m, n, k, kBF16);
  const Context context = device_context();
  const ProductTuning tuning(context);  // finds nothing to choose from
  linear_forward(context, {x, weight, bias, y, {}}, workspace);
  linear_forward(context, {x, weight, {}, wide, {}}, workspace);
  linear_backward_input(context, {dy, weight, dx}, workspace);
  linear_backward_weight(context, {x, dy, dweight, dbias}, workspace);
  const auto size = [](int64_t extent) { return static_cast<size_t>(extent); };
  const auto xs = values_of(x), ws = values_of(weight), dys = values_of(dy);
  EXPECT_TRUE(all_close(y, reference::linear({size(m), size(n), size(k)}, xs, ws, values_of(bias)).y,
                        product_tolerance(kBF16, k)));
  EXPECT_TRUE(
      all_close(wide, reference::linear({size(m), size(n), size(k)}, xs, ws, {}).y, product_tolerance(kF32, k)));
  EXPECT_TRUE(all_close(dx, reference::linear_dx({size(m), size(n), size(k)}, dys, ws), product_tolerance(kBF16, n)));
  const std::string choices = linear_choices(context);
  for (const char* product : {"forward m=33 n=67 k=65 bf16->bf16 bias", "forward m=33 n=67 k=65 bf16->f32",
                              "backward_input m=33 n=67 k=65 bf16->bf16", "backward_weight m=33 n=67 k=65 bf16->f32"}) {
    const size_t at = choices.find(product);
    ASSERT_NE(at, std::string::npos) << product << " is not in\n" << choices;
    const std::string line = choices.substr(at, choices.find('\n', at) - at);
    EXPECT_TRUE(!emulated() || line.ends_with(": own kernel")) << line;
  }
}

class LinearChoices : public Products {
 protected:
  static constexpr int64_t kM = 46, kN = 34, kK = 62;
  struct Results {
    OwnedTensor y{kBF16, {kM, kN}}, dx{kBF16, {kM, kK}}, dweight{kF32, {kN, kK}};
  };
  /// All passes of one layer.
  Results compute(const Context& context) const {
    Results results;
    linear_forward(context, {x_, weight_, bias_, results.y, {}}, workspace_);
    linear_backward_input(context, {dy_, weight_, results.dx}, workspace_);
    linear_backward_weight(context, {x_, dy_, results.dweight, {}}, workspace_);
    return results;
  }
  static Context on(Stream& stream) { return {.device = stream.device(), .pool = nullptr, .stream = stream}; }
  void SetUp() override {
    Products::SetUp();
    if (IsSkipped()) return;
    x_ = random_tensor(kBF16, {kM, kK}, 1), weight_ = random_tensor(kBF16, {kN, kK}, 2);
    dy_ = random_tensor(kBF16, {kM, kN}, 3), bias_ = random_tensor(kF32, {kN}, 4);
    workspace_ = workspace_for(kM, kN, kK, kBF16);
  }
  OwnedTensor x_, weight_, dy_, bias_, workspace_;
};
INSTANTIATE_TEST_SUITE_P(Targets, LinearChoices, ::testing::Values(Target::kCuda), target_name);

TEST_P(LinearChoices, GiveTheSameBitsOnAnotherStream) {
  Stream measuring(used_device()), given(used_device()), alone(used_device());
  std::vector<ProductChoice> choices;
  {
    const ProductTuning tuning(on(measuring));
    compute(on(measuring));
  }
  const Results want = compute(on(measuring));
  measuring.synchronize();
  choices = product_choices(on(measuring));
  ASSERT_EQ(choices.size(), 3u);
  for (const ProductChoice& choice : choices) EXPECT_TRUE(choice.tuned) << to_string(choice);
  use_product_choices(on(given), choices);
  EXPECT_EQ(product_choices(on(given)), choices) << "before anything was computed";
  {
    const ProductTuning tuning(on(given));  // what was given stays
    compute(on(given));
  }
  const Results got = compute(on(given)), untuned = compute(on(alone));
  given.synchronize();
  alone.synchronize();
  EXPECT_EQ(product_choices(on(given)), choices);
  EXPECT_TRUE(same_bits(got.y, want.y) && same_bits(got.dx, want.dx) && same_bits(got.dweight, want.dweight));
  // The emulation's fastest adds up in another order than its first.
  EXPECT_TRUE(!emulated() || !same_bits(untuned.dweight, want.dweight));
  for (const ProductChoice& choice : product_choices(on(alone))) EXPECT_FALSE(choice.tuned) << to_string(choice);
}

TEST_P(LinearChoices, FirstOnesCanBeHandedOnAndAreNotTunedThen) {
  Stream first(used_device()), given(used_device());
  compute(on(first));
  const std::vector<ProductChoice> choices = product_choices(on(first));
  use_product_choices(on(given), choices);
  const ProductTuning tuning(on(given));
  compute(on(given));
  given.synchronize();
  EXPECT_EQ(product_choices(on(given)), choices);
}

TEST_P(LinearChoices, RefusesWhatTheLibraryRefuses) {
  Stream first(used_device()), given(used_device());
  compute(on(first));
  const ProductChoice good = product_choices(on(first)).front();
  const auto refused = [&](auto change) {
    ProductChoice bad = good;
    change(bad.algorithm);
    return throws_error([&] { use_product_choices(on(given), std::span(&bad, 1)); }, ErrorKind::kInvalidArgument,
                        {"products: cublasLt ", "must take the algorithm of ", to_string(bad), "; got CUBLAS_STATUS_"});
  };
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { a.id = 100000; }));
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { a.id = int64_t{1} << 40; }));
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { a.reduction = 1; })) << "adds up in place, rounded in between";
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { a.inner = 70000; }));
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { a.split = -1; }));
  if (!emulated()) return;  // what others are for, only a library knows
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { ++a.swizzle; })) << "of another product";
  EXPECT_TRUE(refused([](ProductAlgorithm& a) { a.stages = 0; }));
}

TEST(ProductsOnCpu, ThereIsNothingToChoose) {
  const Context cpu = cpu_context();
  const ProductTuning tuning(cpu);
  EXPECT_TRUE(product_choices(cpu).empty());
  EXPECT_EQ(product_device(cpu), ProductDevice{});
  EXPECT_NO_THROW(use_product_choices(cpu, {}));
}

}  // namespace
}  // namespace permafrost
