// Which algorithms programs compute their products with on a GPU (or its emulation): the same on all ranks, recorded,
// taken up again, and refused where the record is damaged.
#include "parallel/run/tune_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "core/device/bytes.h"
#include "core/device/cuda.h"
#include "core/kernels/attention.h"
#include "parallel/group/host_staged_group.h"
#include "parallel/group/inproc_group.h"
#include "parallel/run/product_record.h"
#include "parallel/run/same_attention.h"
#include "tests/support/compare.h"
#include "tests/support/toy_graph.h"

namespace permafrost {
namespace {

using Gradients = std::map<int, std::vector<std::byte>>;

class GradientsOf final : public GradientSink {
 public:
  explicit GradientsOf(const Context& context) : context_(context) {}
  void add(int param, const Tensor& gradient) override {
    gradients[param].resize(static_cast<size_t>(gradient.bytes()));
    copy_bytes(context_, gradients[param].data(), gradient.raw(), gradient.bytes());
    finish(context_);
  }
  Gradients gradients;

 private:
  Context context_;
};

/// Units that train and frozen ones, in slots where `sharded`; two programs.
PlanRequest request_of(int ranks, DType compute, bool sharded) {
  PlanRequest request;
  request.world.ranks = ranks;
  request.world.device = cuda::device_count() > 0 ? DeviceKind::kCuda : DeviceKind::kCpu;
  request.build_graph = [compute](int64_t tokens) {
    testing::ToyConfig config;
    config.compute = compute;
    config.tokens = tokens;
    return testing::toy_transformer(config);
  };
  request.buckets = {5, 8};
  request.freezing = {{"blocks.1.*", true}, {"embed.weight", true}};
  request.frozen_dtype = [compute](const ParamInfo&) { return compute; };
  if (sharded) {
    request.frozen_policy = PolicyChoice::kSharded;
    request.gather = GatherChoice::kInline;
  }
  return request;
}

/// One rank with a stream of its own.
struct TunedRank {
  Device device = cuda::device_count() > 0 ? Device::cuda(0) : Device::cpu();
  Stream stream{device};
  Context context = device.kind == DeviceKind::kCuda ? Context{.device = device, .pool = nullptr, .stream = stream}
                                                     : testing::cpu_context();
  Plan plan;
  StepMemory memory;
  Executor executor;

  explicit TunedRank(const PlanRequest& request, int rank = 0, Group* group = nullptr)
      : plan(make_plan(request)), memory(plan, rank, nullptr, device), executor(plan, memory, context, {}, group) {
    if (request.world.nodes > 1) return;  // parameters stay zero
    for (const ParamPlan& param : plan.params) {
      const Tensor t = memory.host_param(param);
      fill(param.initializer, 7, param.name, t.dtype(), 0,
           {static_cast<std::byte*>(t.raw()), static_cast<size_t>(t.bytes())});
    }
    memory.upload_frozen(context);
    memory.upload_working(context);
  }

  std::pair<double, Gradients> run(size_t bucket = 0) {
    const Tensor ids = executor.value(bucket, "ids"), labels = executor.value(bucket, "labels");
    for (int64_t i = 0; i < ids.elements(); ++i) {
      ids.data<int32_t>()[i] = static_cast<int32_t>((3 * i + 1) % 11);
      labels.data<int32_t>()[i] = static_cast<int32_t>((5 * i + 2) % 11);
      executor.value(bucket, "row_weight").data<float>()[i] = 0.125f;
    }
    GradientsOf sink(context);
    const double loss = executor.run(bucket, &sink);
    return {loss, sink.gradients};
  }
};

class TuneProducts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << cuda::why_unavailable();
  }
  static bool emulated() { return cuda::device_info(0).name == "emulated"; }
  /// Alone.
  static PreparedProducts prepare(TunedRank& rank, bool tune, const std::string& stored = "") {
    return prepare_products(rank.executor, rank.plan, *make_solo_group(), tune, stored);
  }
  static std::string replaced(std::string text, const std::string& what, const std::string& by) {
    const size_t at = text.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return at == std::string::npos ? text : text.replace(at, what.size(), by);
  }
};

TEST_F(TuneProducts, RanksShareTheChoicesOfTheFirst) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(to_string(compute));
    TunedRank alone(request_of(1, compute, false)), untuned(request_of(1, compute, false));
    const PreparedProducts want = prepare(alone, true);
    EXPECT_GT(want.tuned, 10u);
    EXPECT_EQ(want.note, "");
    const auto results = std::pair{alone.run(0), alone.run(1)};
    EXPECT_TRUE(std::isfinite(results.first.first));
    // The emulation's fastest adds up in another order than its first: that tuning does something shows in bits.
    EXPECT_TRUE(!emulated() || compute == DType::kBF16 || untuned.run(0) != results.first);
    std::mutex mutex;
    std::map<int, std::string> records;
    run_inproc(2, [&](Group& world) {
      TunedRank rank(request_of(2, compute, false));
      const PreparedProducts got = prepare_products(rank.executor, rank.plan, world, true, "");
      const auto mine = std::pair{rank.run(0), rank.run(1)};
      const std::lock_guard lock(mutex);
      records[world.rank()] = got.record;
      // A GPU may measure otherwise from one time to the next; then only ranks are alike.
      EXPECT_TRUE(!emulated() || mine == results);
    });
    EXPECT_EQ(records[0], records[1]);
    EXPECT_TRUE(!emulated() || records[0] == want.record);
  }
}

TEST_F(TuneProducts, ARecordGivesTheSameBitsWhateverIsAskedFor) {
  TunedRank measured(request_of(1, DType::kF32, false));
  const PreparedProducts first = prepare(measured, true);
  const auto results = measured.run(1);
  for (const bool tune : {true, false}) {
    TunedRank again(request_of(1, DType::kF32, false));
    const PreparedProducts got = prepare(again, tune, first.record);
    EXPECT_EQ(got.record, first.record);
    EXPECT_EQ(got.tuned, 0u);
    EXPECT_EQ(got.note, "");
    EXPECT_EQ(again.run(1), results);
  }
  // And one of first choices is not tuned later.
  TunedRank plain(request_of(1, DType::kF32, false)), later(request_of(1, DType::kF32, false));
  const PreparedProducts firsts = prepare(plain, false);
  EXPECT_EQ(firsts.record.find("\"tuned\":true"), std::string::npos);
  EXPECT_EQ(prepare(later, true, firsts.record).record, firsts.record);
  EXPECT_EQ(later.run(1), plain.run(1));
}

TEST_F(TuneProducts, PreparingChangesNothingThatIsKept) {
  TunedRank untouched(request_of(1, DType::kBF16, false)), prepared(request_of(1, DType::kBF16, false));
  prepare(prepared, false);
  EXPECT_EQ(prepared.run(0), untouched.run(0));
  EXPECT_TRUE(prepared.memory.units_that_differ(prepared.context).empty());
}

TEST_F(TuneProducts, NothingNewIsMetByTheProgramsAfterwards) {
  for (const bool sharded : {false, true}) {
    TunedRank rank(request_of(1, DType::kBF16, sharded));
    prepare(rank, true);
    const std::vector<ProductChoice> choices = product_choices(rank.context);
    rank.run(0);
    rank.run(1);
    EXPECT_EQ(product_choices(rank.context), choices);
  }
}

TEST_F(TuneProducts, AnotherGpuOrLibraryIsSaidAndTunedAnew) {
  TunedRank measured(request_of(1, DType::kF32, false));
  const std::string record = prepare(measured, true).record;
  const std::string mine = product_device(measured.context).library;
  for (const auto& [what, by] : {std::pair{"\"compute_capability\":\"", std::string("\"compute_capability\":\"1")},
                                 {"\"gpu\":\"", std::string("\"gpu\":\"Another ")},
                                 {"\"library\":\"", std::string("\"library\":\"older ")}})
    for (const bool tune : {true, false}) {
      SCOPED_TRACE(what);
      TunedRank rank(request_of(1, DType::kF32, false));
      const PreparedProducts got = prepare(rank, tune, replaced(record, what, by));
      EXPECT_NE(got.note.find("products: algorithms were chosen on "), std::string::npos) << got.note;
      EXPECT_NE(got.note.find(tune ? "tuned anew" : "the first that the library names"), std::string::npos) << got.note;
      EXPECT_NE(got.note.find("may differ in their last bits"), std::string::npos) << got.note;
      EXPECT_EQ(got.tuned > 0, tune);
      EXPECT_TRUE(!emulated() || !tune || got.record == record);
    }
}

/// Heads of 8 elements: such that cuDNN takes where they are in bf16 and it is allowed for so few tokens.
PlanRequest with_heads(PlanRequest request, int64_t heads) {
  const DType compute = request.frozen_dtype({});
  request.build_graph = [compute, heads](int64_t tokens) {
    testing::ToyConfig config;
    config.compute = compute;
    config.tokens = tokens;
    config.heads = heads;
    config.width = 8 * heads;
    return testing::toy_transformer(config);
  };
  return request;
}
void allow_cudnn(const TunedRank& rank, cuda::CudnnUse use) { cuda::use_cudnn(*rank.context.stream.queue(), use); }

TEST_F(TuneProducts, AnotherAttentionIsSaidAndProductsStay) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto prepared = [&](const std::string& stored) {
      TunedRank rank(with_heads(request_of(1, compute, false), 2));
      allow_cudnn(rank, cuda::CudnnUse::kAlways);
      return std::pair(prepare(rank, true, stored), attention_library(rank.context).name);
    };
    const auto [first, library] = prepared("");
    // Of f32 no library computes anything.
    const std::string used = compute == DType::kF32 ? "own kernels" : library;
    const std::string mine = "\"attention\":\"" + used + "\"", words = "and now by " + used + ": results may differ";
    ASSERT_NE(first.record.find(mine), std::string::npos) << first.record;
    EXPECT_EQ(prepared(first.record).first.note, "");
    const PreparedProducts got = prepared(replaced(first.record, mine, "\"attention\":\"another\"")).first;
    EXPECT_NE(got.note.find("attention: was computed by another, " + words), std::string::npos) << got.note;
    EXPECT_EQ(got.tuned, 0u);
    EXPECT_EQ(got.record, first.record);
    // Records from before there was a choice are of own kernels.
    const std::string note = prepared(replaced(first.record, "," + mine, "")).first.note;
    EXPECT_EQ(note.find("computed by own kernels, " + words) == std::string::npos, used == "own kernels") << note;
  }
}

TEST_F(TuneProducts, RanksOfWhichOneMayNotUseTheLibraryAreRefusedForWhatItTakesAlone) {
  if (!attention_library(TunedRank(request_of(1, DType::kF32, false)).context).missing.empty())
    GTEST_SKIP() << "no cuDNN here";
  const auto on_ranks = [](DType compute) {
    run_inproc(2, [&](Group& world) {
      TunedRank rank(with_heads(request_of(2, compute, false), 2));
      allow_cudnn(rank, world.rank() == 0 ? cuda::CudnnUse::kAlways : cuda::CudnnUse::kNever);
      const PreparedProducts got = prepare_products(rank.executor, rank.plan, world, true, "");
      EXPECT_NE(got.record.find("\"attention\":\"own kernels\""), std::string::npos) << got.record;
    });
  };
  EXPECT_NO_THROW(on_ranks(DType::kF32)) << "cuDNN computes nothing of it";
  EXPECT_TRUE(testing::throws_error([&] { on_ranks(DType::kBF16); }, ErrorKind::kConfig,
                                    {"attention: all ranks must compute a call by the same library",
                                     "got attention backward bf16 (B, T, S, H, D) = (2, 5, 5, 2, 8), strides 48 48 48, "
                                     "causal, scale 0.353553: cuDNN ",
                                     " on rank 0, own kernels on rank 1 (it is not allowed (parallel.attention: OWN))",
                                     "; and so 3 more", "parallel.attention=OWN"}));
}

TEST_F(TuneProducts, APlanThatIsRefusedOnOneRankAloneIsRefusedOnAll) {
  if (!emulated()) GTEST_SKIP() << "the emulation gives 5 heads to one rank; no cuDNN is known that does";
  std::mutex mutex;
  std::map<int, std::string> errors;
  run_inproc(3, [&](Group& world) {
    TunedRank rank(with_heads(request_of(3, DType::kBF16, false), 5));
    allow_cudnn(rank, cuda::CudnnUse::kAlways);
    try {
      prepare_products(rank.executor, rank.plan, world, true, "");
    } catch (const Error& error) {
      const std::lock_guard lock(mutex);
      errors[world.rank()] = concat(to_string(error.kind()), ": ", error.what());
    }
    world.barrier(StreamView::caller(), "streams are there").wait();  // or another might be given what is free again
  });
  ASSERT_EQ(errors.size(), 3u);
  EXPECT_EQ(errors[0], errors[1]);
  EXPECT_EQ(errors[0], errors[2]);
  EXPECT_NE(errors[0].find("(the emulation has 5 heads for one stream alone)"), std::string::npos) << errors[0];
  EXPECT_NE(errors[0].find(": cuDNN emulated on rank "), std::string::npos) << errors[0];
  // Alone it is taken, and one that all ranks are refused is nobody's difference.
  for (const int64_t heads : {5, 7}) {
    TunedRank alone(with_heads(request_of(1, DType::kBF16, false), heads));
    allow_cudnn(alone, cuda::CudnnUse::kAlways);
    const std::string record = prepare(alone, false).record;
    EXPECT_EQ(record.find("\"attention\":\"cuDNN emulated\"") != std::string::npos, heads == 5) << record;
  }
  EXPECT_NO_THROW(run_inproc(2, [&](Group& world) {
    TunedRank rank(with_heads(request_of(2, DType::kBF16, false), 7));
    allow_cudnn(rank, cuda::CudnnUse::kAlways);
    prepare_products(rank.executor, rank.plan, world, true, "");
  }));
}

TEST(SameAttention, ComparesCallsThatRanksHaveInCommon) {
  const auto on_ranks = [](const std::vector<std::vector<AttentionChoice>>& ranks) {
    run_inproc(static_cast<int>(ranks.size()), [&](Group& world) {
      require_same_attention(world, ranks[static_cast<size_t>(world.rank())]);
      world.barrier(StreamView::caller(), "end").wait();
    });
  };
  const AttentionChoice taken{"call A", "cuDNN 9.19.0", ""}, newer{"call A", "cuDNN 9.20.0", ""},
      refused{"call A", "", "no libcudnn.so.9\nhere"}, otherwise_refused{"call A", "", "other words"},
      second{"call B", "cuDNN 9.19.0", ""}, second_refused{"call B", "", "no"};
  EXPECT_NO_THROW(on_ranks({{taken, second}, {taken, second}, {taken, second}}));
  EXPECT_NO_THROW(on_ranks({{refused}, {otherwise_refused}}));
  EXPECT_NO_THROW(on_ranks({{taken}, {taken, second}, {}})) << "what a rank has not met";
  EXPECT_TRUE(testing::throws_error(
      [&] {
        on_ranks({{}, {refused, second}, {taken}});
      },
      ErrorKind::kConfig,
      {"got call A: cuDNN 9.19.0 on rank 2, own kernels on rank 1 (no libcudnn.so.9\nhere). Ways out: "}));
  EXPECT_TRUE(testing::throws_error(
      [&] {
        on_ranks({{taken, second}, {newer, second_refused}});
      },
      ErrorKind::kConfig, {"got call A: cuDNN 9.19.0 on rank 0, cuDNN 9.20.0 on rank 1; and so 1 more. "}));
}

TEST_F(TuneProducts, RefusesDamagedRecords) {
  TunedRank measured(request_of(1, DType::kF32, false));
  const std::string record = prepare(measured, true).record;
  const auto refused = [&](const std::string& text, const std::vector<std::string>& parts) {
    TunedRank rank(request_of(1, DType::kF32, false));
    std::vector<std::string> all{"products.json"};
    all.insert(all.end(), parts.begin(), parts.end());
    return testing::throws_error([&] { prepare(rank, true, text); }, ErrorKind::kWeights, all);
  };
  EXPECT_TRUE(refused(record.substr(0, record.size() / 2), {"is damaged"}));
  EXPECT_TRUE(refused("{}", {"is damaged", "format"}));
  EXPECT_TRUE(
      refused(replaced(record, "products.1", "products.9"), {"is damaged", "format must be permafrost.products.1"}));
  EXPECT_TRUE(refused(replaced(record, "\"rows\":", "\"rows\":-"), {"is damaged: rows must be 1 to "}));
  EXPECT_TRUE(refused(replaced(record, "\"pass\":\"forward\"", "\"pass\":\"sideward\""),
                      {"is damaged: pass must", "sideward"}));
  EXPECT_TRUE(
      refused(replaced(record, "\"inputs\":\"f32\"", "\"inputs\":\"i64\""), {"is damaged: inputs must", "i64"}));
  EXPECT_TRUE(refused(replaced(record, "\"swizzle\":", "\"swizzled\":"), {"is damaged", "swizzle"}));
  EXPECT_TRUE(
      refused(replaced(record, "\"id\":", "\"id\":9"), {"does not fit this run", "must take the algorithm of"}));
}

/// The others gather what the first needs while it measures.
TEST_F(TuneProducts, WeightsOfOtherNodesComeMeanwhile) {
  std::mutex mutex;
  std::map<int, std::string> records;
  std::map<int, int64_t> gathered;
  run_inproc(2, [&](Group& world) {
    PlanRequest request = request_of(2, DType::kBF16, true);
    request.world.nodes = 2;
    const auto devices = make_host_staged_group(world.split(0, world.rank(), "gathers"), Device::cuda(0), 1 << 16);
    TunedRank rank(request, world.rank(), devices.get());
    ASSERT_EQ(rank.plan.gather.kind, GatherKind::kCollective);
    const PreparedProducts got = prepare_products(rank.executor, rank.plan, world, true, "");
    const std::lock_guard lock(mutex);
    records[world.rank()] = got.record;
    gathered[world.rank()] = rank.executor.take_gathered_bytes();
  });
  EXPECT_NE(records[0].find("\"tuned\":true"), std::string::npos);
  EXPECT_EQ(records[0], records[1]);
  EXPECT_GT(gathered[0], 0);
  EXPECT_GT(gathered[1], 0);
}

TEST_F(TuneProducts, RefusesRanksWithOtherProducts) {
  EXPECT_TRUE(testing::throws_error(
      [] {
        run_inproc(2, [](Group& world) {
          PlanRequest request = request_of(2, DType::kF32, false);
          if (world.rank() == 1) request.buckets = {5, 9};
          TunedRank rank(request);
          prepare_products(rank.executor, rank.plan, world, true, "");
        });
      },
      ErrorKind::kInternal, {"products: every product of rank 1 must be one of rank 0; got ", " m=18 "}));
}

TEST(ProductDevices, MustBeAlikeOnAllRanks) {
  const auto on_ranks = [](const ProductDevice& second) {
    run_inproc(2, [&](Group& world) {
      const ProductDevice first{"GPU", "9.0", "cublasLt 2"};
      require_device_of_first(world, world.rank() == 0 ? first : second);
      world.barrier(StreamView::caller(), "end").wait();
    });
  };
  EXPECT_NO_THROW(on_ranks({"GPU", "9.0", "cublasLt 2"}));
  for (const ProductDevice& other :
       {ProductDevice{"Another", "9.0", "cublasLt 2"}, {"GPU", "8.0", "cublasLt 2"}, {"GPU", "9.0", "cublasLt 1"}})
    EXPECT_TRUE(testing::throws_error([&] { on_ranks(other); }, ErrorKind::kConfig,
                                      {"products: all ranks must have the GPU and the library of rank 0",
                                       "got GPU (9.0, cublasLt 2) on rank 0, ", other.library + ") on rank 1"}));
}

TEST_F(TuneProducts, NobodyObservesIt) {
  struct Nothing final : ExecutorObserver {
    void begin_program(size_t) override { ++calls; }
    void begin_gather(size_t) override { ++calls; }
    void begin_step(size_t) override { ++calls; }
    void end_step(size_t) override { ++calls; }
    int calls = 0;
  } observer;
  TunedRank rank(request_of(1, DType::kBF16, false));
  rank.executor.observe(&observer);
  prepare(rank, false);
  EXPECT_EQ(observer.calls, 0);
  EXPECT_EQ(rank.executor.observe(nullptr), &observer);
}

TEST(ProductRecord, IsReadAsItWasWritten) {
  ProductChoice library, own;
  library.key = {
      .pass = LinearPass::kBackwardWeight, .rows = 1, .columns = 2, .terms = 3, .lda = 4, .ldb = 5, .ldd = 6};
  library.key.inputs = DType::kBF16;
  library.key.transposed_b = library.key.tf32 = true;
  library.key.alignment_a = 16, library.key.alignment_b = 2, library.key.alignment_d = 4;
  library.algorithm = {.id = 66, .tile = 20, .stages = 8, .split = 4, .reduction = 2};
  library.algorithm.swizzle = 1, library.algorithm.option = 7, library.algorithm.inner = 9;
  library.algorithm.cluster = 65535;
  library.tuned = true;
  own.key = library.key;
  own.key.bias = own.key.transposed_a = true;
  own.algorithm.own = true;
  const ProductRecord record{{"A \"GPU\"", "9.0", "cublasLt 1"}, {library, own}, "cuDNN 1"};
  const ProductRecord read = parse_product_record(to_text(record), "text");
  EXPECT_EQ(read.device, record.device);
  EXPECT_EQ(read.choices, record.choices);
  EXPECT_EQ(read.attention, record.attention);
  EXPECT_TRUE(parse_product_record(to_text({{}, {}}), "text").choices.empty());
}

TEST(ProductsOnCpu, ArePreparedByNothing) {
  Plan plan = make_plan([] {
    PlanRequest request = request_of(1, DType::kF32, false);
    request.world.device = DeviceKind::kCpu;
    return request;
  }());
  const StepMemory memory(plan);
  Executor executor(plan, memory, testing::cpu_context());
  const PreparedProducts prepared = prepare_products(executor, plan, *make_solo_group(), true, "kept as it is");
  EXPECT_EQ(prepared.record, "kept as it is");
  EXPECT_EQ(prepared.note, "");
}

}  // namespace
}  // namespace permafrost
