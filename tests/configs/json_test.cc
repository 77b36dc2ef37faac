#include "configs/json.h"

#include "core/base/json.h"
#include "tests/configs/small_config.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {

TEST(Json, HasNumbersNamesListsAndNested) {
  const auto json = parse_json(to_json(small({"train.max_steps=9007199254740993", "data.length_buckets=32,64",
                                              "optimizer.lr=1e-3", "freeze+={pattern: \"a\\\"b\" trainable: true}"})
                                           .config));
  EXPECT_EQ(json["train"]["max_steps"].get<int64_t>(), 9007199254740993);
  EXPECT_EQ(json["optimizer"]["lr"].get<double>(), 1e-3);
  EXPECT_EQ(json["data"]["length_buckets"], Json({32, 64}));
  EXPECT_EQ(json["parallel"]["reduction"], "ORDER_FREE");
  EXPECT_EQ(json["freeze"][0]["pattern"], "a\"b");
  EXPECT_EQ(json["freeze"][0]["trainable"], true);
  EXPECT_EQ(json["model"]["epalm"]["vision"]["dim"], 12);
  EXPECT_FALSE(json["weights"].contains("vision"));
}

}  // namespace
}  // namespace permafrost::config
