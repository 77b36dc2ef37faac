#include "configs/load.h"

#include <filesystem>
#include <fstream>

#include "core/base/sha256.h"
#include "tests/configs/small_config.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {
using testing::throws_error;

TEST(Load, DefaultsComeFromTheSchemaAndAreWrittenOut) {
  const Resolved resolved = small();
  EXPECT_TRUE(resolved.config.optimizer().has_lr());
  EXPECT_EQ(resolved.config.optimizer().lr(), 2e-5);
  EXPECT_EQ(resolved.config.parallel().reduction(), Parallel::ORDER_FREE);
  EXPECT_NE(resolved.text.find("global_batch: 16"), std::string::npos) << resolved.text;
  EXPECT_NE(resolved.text.find("vis_row: PUBLISHED"), std::string::npos) << resolved.text;
}

TEST(Load, WhatHasNoDefaultStaysAbsent) {
  const Resolved resolved = small({"optimizer.groups+={pattern: \"prompt*\"}"});
  EXPECT_FALSE(resolved.config.weights().has_vision());
  EXPECT_FALSE(resolved.config.optimizer().groups(0).has_lr());
  EXPECT_EQ(resolved.config.optimizer().groups(0).lr_scale(), 1.0);
}

TEST(Load, ResolvedTextLoadsToItselfAndHasItsHash) {
  const Resolved once = small({"freeze+={pattern: \"vision.*\" trainable: true}", "data.length_buckets=32,64"});
  const Resolved twice = resolve_config(once.text, "again");
  EXPECT_EQ(once.text, twice.text);
  EXPECT_EQ(once.sha256, twice.sha256);
  EXPECT_EQ(once.sha256, sha256(once.text.data(), once.text.size()));
  EXPECT_NE(once.sha256, small().sha256);
}

TEST(Load, AsksTheCallersCheckOnlyAboutSoundModels) {
  int asked = 0;
  const Check check = [&](const Config&, Problems& problems) {
    ++asked;
    problems.add("freeze[0].pattern", "matches nothing");
  };
  EXPECT_TRUE(throws_error([&] { resolve_config(kSmall, "test", {"optimizer.beta1=2"}, check); }, ErrorKind::kConfig,
                           {"2 problems", "optimizer.beta1", "freeze[0].pattern: matches nothing"}));
  EXPECT_TRUE(throws_error([&] { resolve_config(kSmall, "test", {"model.epalm.text.hidden=0"}, check); },
                           ErrorKind::kConfig, {"model.epalm.text.hidden"}));
  EXPECT_EQ(asked, 1);
}

TEST(Load, ReadsFilesAndNamesThoseItCannotRead) {
  const auto folder = std::filesystem::temp_directory_path() / ("permafrost_load_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string path = (folder / "a.textproto").string();
  std::ofstream(path) << kSmall;
  EXPECT_EQ(load_config(path).text, small().text);
  EXPECT_EQ(load_config(path, {"train.max_steps=3"}).config.train().max_steps(), 3);
  EXPECT_TRUE(throws_error([&] { load_config((folder / "none.textproto").string()); }, ErrorKind::kConfig,
                           {"expected a readable file", "none.textproto"}));
  EXPECT_TRUE(throws_error([&] { load_config(folder.string()); }, ErrorKind::kConfig, {"expected a readable file"}));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace permafrost::config
