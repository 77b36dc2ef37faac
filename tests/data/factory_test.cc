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

}  // namespace
}  // namespace permafrost::testing
