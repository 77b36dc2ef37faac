// What evaluation.data and the entries of a mix take from the data around them.
#include "configs/inherit.h"

#include <gtest/gtest.h>

namespace permafrost::config {
namespace {

Config outer() {
  Config config;
  Data& data = *config.mutable_data();
  data.set_root("photos");
  data.set_captions("train.json");
  data.mutable_tokenizer()->set_root("opt");
  data.add_length_buckets(16);
  data.add_length_buckets(64);
  return config;
}

/// Where nothing is wrong.
void inherit(Config& config) {
  Problems problems;
  inherit_data(config, problems);
  EXPECT_TRUE(problems.empty()) << problems.lines()[0];
}

TEST(InheritData, EvaluationReadsTheSameDataUnlessItSaysOtherwise) {
  Config config = outer();
  inherit(config);
  EXPECT_EQ(config.evaluation().data().SerializeAsString(), config.data().SerializeAsString());

  config = outer();
  config.mutable_evaluation()->mutable_data()->set_captions("val.json");
  config.mutable_evaluation()->mutable_data()->mutable_tokenizer()->set_vocab("other.json");
  inherit(config);
  const Data& evaluated = config.evaluation().data();
  EXPECT_EQ(evaluated.captions(), "val.json");
  EXPECT_EQ(evaluated.root(), "photos");
  EXPECT_EQ(evaluated.tokenizer().root(), "opt") << "messages are completed field by field";
  EXPECT_EQ(evaluated.tokenizer().vocab(), "other.json");
  EXPECT_EQ(config.data().captions(), "train.json");
}

TEST(InheritData, ListsReplaceLists) {
  Config config = outer();
  config.mutable_evaluation()->mutable_data()->add_length_buckets(32);
  inherit(config);
  ASSERT_EQ(config.evaluation().data().length_buckets_size(), 1);
  EXPECT_EQ(config.evaluation().data().length_buckets(0), 32);
}

TEST(InheritData, EntriesOfAMixAreCompletedAndDoNotHoldTheMix) {
  Config config = outer();
  config.mutable_data()->add_mix()->mutable_data()->set_captions("first.json");
  MixedData& second = *config.mutable_data()->add_mix();
  second.set_weight(3);
  second.mutable_data()->set_root("elsewhere");
  inherit(config);
  ASSERT_EQ(config.data().mix_size(), 2);
  EXPECT_EQ(config.data().mix(0).data().captions(), "first.json");
  EXPECT_EQ(config.data().mix(0).data().root(), "photos");
  EXPECT_EQ(config.data().mix(0).data().mix_size(), 0);
  EXPECT_EQ(config.data().mix(1).data().captions(), "train.json");
  EXPECT_EQ(config.data().mix(1).data().root(), "elsewhere");
  EXPECT_EQ(config.data().mix(1).weight(), 3);
  EXPECT_EQ(config.evaluation().data().SerializeAsString(), config.data().SerializeAsString());
}

TEST(InheritData, AnEvaluationWithAMixOfItsOwnKeepsIt) {
  Config config = outer();
  config.mutable_data()->add_mix()->mutable_data()->set_captions("first.json");
  config.mutable_evaluation()->mutable_data()->add_mix()->mutable_data()->set_captions("val.json");
  inherit(config);
  ASSERT_EQ(config.evaluation().data().mix_size(), 1);
  EXPECT_EQ(config.evaluation().data().mix(0).data().captions(), "val.json");
  EXPECT_EQ(config.evaluation().data().mix(0).data().root(), "photos");
}

TEST(InheritData, FieldsThatAnInheritedMixWouldHideAreRefused) {
  Config config = outer();
  config.mutable_data()->add_mix()->mutable_data()->set_root("elsewhere");
  config.mutable_data()->add_mix()->mutable_data()->set_captions("second.json");
  config.mutable_evaluation()->mutable_data()->set_captions("val.json");
  config.mutable_evaluation()->mutable_data()->set_split("val");
  Problems problems;
  inherit_data(config, problems);
  EXPECT_EQ(problems.lines(),
            std::vector<std::string>{"evaluation.data.captions: expected an evaluation.data.mix of its own, since "
                                     "data.mix[1] gives this field; got \"val.json\""});

  Config own = outer();
  own.mutable_data()->add_mix()->mutable_data()->set_root("elsewhere");
  own.mutable_evaluation()->mutable_data()->set_captions("val.json");
  inherit(own);
  EXPECT_EQ(own.evaluation().data().mix(0).data().captions(), "val.json") << "entries that say only where they are";
  EXPECT_EQ(own.evaluation().data().mix(0).data().root(), "elsewhere");
  EXPECT_EQ(own.data().mix(0).data().captions(), "train.json");
}

TEST(InheritData, AgainChangesNothing) {
  Config config = outer();
  config.mutable_data()->add_mix()->mutable_data()->set_captions("first.json");
  config.mutable_evaluation()->mutable_data()->add_length_buckets(32);
  inherit(config);
  const std::string once = config.SerializeAsString();
  inherit(config);
  EXPECT_EQ(config.SerializeAsString(), once);
}

}  // namespace
}  // namespace permafrost::config
