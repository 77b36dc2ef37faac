#include "configs/overrides.h"

#include "tests/configs/small_config.h"
#include "tests/support/compare.h"

namespace permafrost::config {
namespace {

Config with(const std::vector<std::string>& overrides) {
  Config config;
  Problems problems;
  for (const std::string& text : overrides) apply_override(text, config, problems);
  EXPECT_TRUE(problems.empty()) << problems.lines().front();
  return config;
}

/// The one problem of an override.
std::string problem(const std::string& text) {
  Config config;
  Problems problems;
  apply_override(text, config, problems);
  EXPECT_EQ(problems.lines().size(), 1u) << text;
  return problems.empty() ? "" : problems.lines().front();
}

TEST(Overrides, SetEveryKindOfField) {
  const Config config = with({"train.max_steps=40", "train.micro_batch=-1", "data.seed=18446744073709551615",
                              "optimizer.lr=3e-4", "data.shuffle=false", "parallel.reduction=PLAIN",
                              "data.root=/a b/c=d", "data.length_buckets=16,32", "data.length_buckets+=64"});
  EXPECT_EQ(config.train().max_steps(), 40);
  EXPECT_EQ(config.train().micro_batch(), -1);
  EXPECT_EQ(config.data().seed(), 18446744073709551615u);
  EXPECT_EQ(config.optimizer().lr(), 3e-4);
  EXPECT_TRUE(config.data().has_shuffle());
  EXPECT_FALSE(config.data().shuffle());
  EXPECT_EQ(config.parallel().reduction(), Parallel::PLAIN);
  EXPECT_EQ(config.data().root(), "/a b/c=d");
  ASSERT_EQ(config.data().length_buckets_size(), 3);
  EXPECT_EQ(config.data().length_buckets(2), 64);
}

TEST(Overrides, ListsOfMessages) {
  const Config config = with({"freeze+={pattern: \"a\" trainable: true}", "freeze+={pattern: \"b\" trainable: true}",
                              "freeze[1].trainable=false", "freeze[0]={pattern: \"c\"}"});
  ASSERT_EQ(config.freeze_size(), 2);
  EXPECT_EQ(config.freeze(0).pattern(), "c");
  EXPECT_TRUE(config.freeze(0).trainable()) << "fields not named keep their value";
  EXPECT_FALSE(config.freeze(1).trainable());
  EXPECT_EQ(with({"freeze+={pattern: \"a\"}", "freeze="}).freeze_size(), 0);
  EXPECT_EQ(with({"freeze+={pattern: \"a\"}", "freeze={pattern: \"z\"}"}).freeze(0).pattern(), "z");
  EXPECT_EQ(with({"data.length_buckets=16", "data.length_buckets="}).data().length_buckets_size(), 0);
}

TEST(Overrides, LaterOnesWin) { EXPECT_EQ(with({"train.max_steps=1", "train.max_steps=2"}).train().max_steps(), 2); }

TEST(Overrides, SayWhatIsAllowed) {
  EXPECT_EQ(problem("train.max_step=3"),
            "--set train.max_step=3: no field 'max_step' (did you mean 'max_steps'?); fields here: max_steps, "
            "global_batch, micro_batch, seed, final_check");
  EXPECT_EQ(problem("parallel.reduction=plain"),
            "--set parallel.reduction=plain: expected one of ORDER_FREE, PLAIN; got 'plain'");
  EXPECT_EQ(problem("train.max_steps=3.5"), "--set train.max_steps=3.5: expected a whole number of 64 bits; got '3.5'");
  EXPECT_EQ(problem("train.micro_batch=3000000000"),
            "--set train.micro_batch=3000000000: expected a whole number of 32 bits; got '3000000000'");
  EXPECT_EQ(problem("data.seed=-1"), "--set data.seed=-1: expected a whole number of 64 bits, 0 and up; got '-1'");
  EXPECT_EQ(problem("optimizer.lr=fast"), "--set optimizer.lr=fast: expected a number; got 'fast'");
  EXPECT_EQ(problem("optimizer.lr="), "--set optimizer.lr=: expected a number; got ''");
  EXPECT_EQ(problem("data.shuffle=yes"), "--set data.shuffle=yes: expected true or false; got 'yes'");
  EXPECT_EQ(problem("data.length_buckets=16,x"),
            "--set data.length_buckets=16,x: expected a whole number of 32 bits; got 'x'");
}

TEST(Overrides, RefuseBadPaths) {
  EXPECT_EQ(problem("train"), "--set train: expected path.to.field=value; got 'train'");
  EXPECT_EQ(problem("=3"), "--set =3: expected path.to.field=value; got '=3'");
  EXPECT_EQ(problem("train..max_steps=3"),
            "--set train..max_steps=3: expected path.to.field=value; got 'train..max_steps=3'");
  EXPECT_EQ(problem("train.max_steps.more=3"),
            "--set train.max_steps.more=3: 'max_steps' is a single value and has no fields");
  EXPECT_EQ(problem("freeze.pattern=a"),
            "--set freeze.pattern=a: expected an index into the 0 elements of 'freeze', as freeze[0]; got none");
  EXPECT_EQ(problem("freeze[2].pattern=a"),
            "--set freeze[2].pattern=a: expected an index into the 0 elements of 'freeze', as freeze[0]; got 2");
  EXPECT_EQ(problem("train[0].max_steps=1"), "--set train[0].max_steps=1: 'train' is not a list and takes no index");
  EXPECT_EQ(problem("freeze[x].pattern=a"),
            "--set freeze[x].pattern=a: expected a field name, or name[index]; got 'freeze[x]'");
  EXPECT_EQ(problem("train.max_steps+=1"),
            "--set train.max_steps+=1: 'max_steps' is not a list; += appends to lists only");
  EXPECT_NE(problem("train=40").find("expected { fields in protobuf text: max_steps"), std::string::npos);
  EXPECT_NE(problem("freeze+={patern: \"a\"}").find("no field 'patern' (did you mean 'pattern'?)"), std::string::npos);
}

}  // namespace
}  // namespace permafrost::config
