#include "data/factory.h"

#include "tests/support/compare.h"

namespace permafrost::testing {
namespace {

TEST(DataFactory, ImageSizeIsThatOfTheModel) {
  config::Config config;
  EXPECT_TRUE(throws_error([&] { image_size(config); }, ErrorKind::kConfig,
                           {"model: expected one of epalm, vision_classifier, language_model, projector; got none"}));
  config.mutable_model()->mutable_epalm()->mutable_vision()->set_image_size(32);
  EXPECT_EQ(image_size(config), 32);
  config.mutable_model()->mutable_vision_classifier()->mutable_vision()->set_image_size(48);
  EXPECT_EQ(image_size(config), 48);
  config.mutable_model()->mutable_projector()->mutable_vision()->set_image_size(64);
  EXPECT_EQ(image_size(config), 64);
  config.mutable_model()->mutable_language_model();
  EXPECT_EQ(image_size(config), 0);
}

TEST(DataFactory, DecodingTakesTheThreadsThatAGpuLeavesIdle) {
  config::Config config;
  EXPECT_EQ(decode_threads(config, 16), 1) << "compute threads are busy";
  config.mutable_parallel()->set_device(config::Parallel::CUDA);
  EXPECT_EQ(decode_threads(config, 8), 7);
  EXPECT_EQ(decode_threads(config, 1), 1);
  EXPECT_EQ(decode_threads(config, 64), 16);
  config.mutable_data()->set_decode_threads(3);
  EXPECT_EQ(decode_threads(config, 64), 3);
}

}  // namespace
}  // namespace permafrost::testing
