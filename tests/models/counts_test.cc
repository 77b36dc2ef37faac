// Parameter counts of the published variants. Sources: eP-ALM's tables, and arithmetic on published sizes.
#include <gtest/gtest.h>

#include "models/epalm/epalm.h"

namespace permafrost {
namespace {

struct Counts {
  int64_t trainable = 0, total = 0;
};

Counts counts_of(const EpalmConfig& config) {
  const Graph graph = build_epalm(config, DType::kBF16, {2, 5, false});
  const std::vector<bool> trainable = resolve_freezing(graph, epalm_freezing(config));
  Counts counts;
  for (size_t p = 0; p < trainable.size(); ++p) {
    const int64_t elements = graph.params()[p].shape.elements();
    counts.total += elements;
    if (trainable[p]) counts.trainable += elements;
  }
  return counts;
}

EpalmConfig base(OptSize size, int64_t start, int64_t end) {
  EpalmConfig config;
  config.text = OptConfig::of(size);
  config.start = start;
  config.end = end;
  return config;
}

void expect_counts(const EpalmConfig& config, int64_t trainable, int64_t total) {
  const Counts counts = counts_of(config);
  EXPECT_EQ(counts.trainable, trainable);
  EXPECT_EQ(counts.total, total);
}

TEST(EpalmCounts, SharedLinearOn350M) {
  EpalmConfig config = base(OptSize::k350M, 11, 23);
  config.shared_connector = true;
  config.prompt = EpalmConfig::Prompt::kNone;
  expect_counts(config, 787'456, 417'782'528);
}

TEST(EpalmCounts, SixLinearsOn350M) {
  EpalmConfig config = base(OptSize::k350M, 11, 23);
  config.prompt = EpalmConfig::Prompt::kNone;
  expect_counts(config, 4'724'736, 421'719'808);
}

TEST(EpalmCounts, PromptTableOn350M) {
  EpalmConfig config = base(OptSize::k350M, 11, 23);
  config.shared_connector = true;
  config.prompt = EpalmConfig::Prompt::kTable;
  expect_counts(config, 792'576, 417'787'648);
}

TEST(EpalmCounts, MainOn350M) { expect_counts(base(OptSize::k350M, 11, 23), 5'255'168, 422'250'240); }

TEST(EpalmCounts, MainOn2_7B) { expect_counts(base(OptSize::k2_7B, 19, 31), 24'949'760, 2'762'345'216); }

TEST(EpalmCounts, PtLOn6_7BWithVitL) {
  EpalmConfig config = base(OptSize::k6_7B, 19, 31);
  config.vision = VitConfig::l16();
  config.shared_connector = true;
  config.prompt = EpalmConfig::Prompt::kTable;
  expect_counts(config, 4'239'360, 6'966'014'976);
}

TEST(EpalmCounts, MainOn125M) { expect_counts(base(OptSize::k125M, 5, 11), 4'732'416, 215'770'368); }

int64_t text_params(OptSize size) {
  const OptConfig config = OptConfig::of(size);
  Graph graph(DType::kBF16);
  const Value ids = graph.input("input_ids", {{1, 3}, DType::kI32});
  const Value positions = graph.input("position_ids", {{1, 3}, DType::kI32});
  build_opt(graph, config, ids, positions, {});
  int64_t total = 0;
  for (const ParamInfo& info : graph.params()) total += info.shape.elements();
  return total;
}

TEST(OptCounts, AllPublishedSizes) {
  EXPECT_EQ(text_params(OptSize::k125M), 125'239'296);
  EXPECT_EQ(text_params(OptSize::k350M), 331'196'416);
  EXPECT_EQ(text_params(OptSize::k1_3B), 1'315'758'080);
  EXPECT_EQ(text_params(OptSize::k2_7B), 2'651'596'800);
  EXPECT_EQ(text_params(OptSize::k6_7B), 6'658'473'984);
}

TEST(VitCounts, BothPublishedSizes) {
  for (const auto& [config, expected] :
       {std::pair{VitConfig::b16(), int64_t{85'798'656}}, {VitConfig::l16(), int64_t{303'301'632}}}) {
    Graph graph(DType::kBF16);
    build_vit(graph, config, graph.input("images", {{1, 3, 224, 224}, DType::kF32}), {{config.depth - 1}, false});
    int64_t total = 0;
    for (const ParamInfo& info : graph.params()) total += info.shape.elements();
    EXPECT_EQ(total, expected);
  }
}

TEST(EpalmCounts, ParametersAreTheSameForEveryShape) {
  const EpalmConfig config = base(OptSize::k350M, 11, 23);
  const Graph a = build_epalm(config, DType::kBF16, {2, 5, false}),
              b = build_epalm(config, DType::kBF16, {16, 64, true});
  ASSERT_EQ(a.params().size(), b.params().size());
  for (size_t p = 0; p < a.params().size(); ++p) {
    EXPECT_EQ(a.params()[p].name, b.params()[p].name);
    EXPECT_EQ(a.params()[p].shape, b.params()[p].shape);
    EXPECT_EQ(a.units()[static_cast<size_t>(a.params()[p].unit)].name,
              b.units()[static_cast<size_t>(b.params()[p].unit)].name);
  }
}

}  // namespace
}  // namespace permafrost
