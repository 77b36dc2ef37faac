// Images by the value of a field of their annotations.
#include "launch/evaluation/image_groups.h"

#include "tests/support/compare.h"

namespace permafrost {
namespace {

/// Nothing but annotations.
class Annotated final : public Dataset {
 public:
  explicit Annotated(std::vector<std::string> annotations) : annotations_(std::move(annotations)) {}
  int64_t size() const override { return images(); }
  Sample sample(int64_t) const override { return {}; }
  int64_t images() const override { return std::ssize(annotations_); }
  uint64_t image_id(int64_t image) const override { return static_cast<uint64_t>(image); }
  std::string image_name(int64_t image) const override { return "image " + std::to_string(image); }
  void read_image(int64_t, std::vector<uint8_t>&) const override {}
  int64_t image_bytes(int64_t) const override { return 0; }
  std::string annotations(int64_t image) const override { return annotations_[static_cast<size_t>(image)]; }

 private:
  std::vector<std::string> annotations_;
};

TEST(ImageGroups, SortsValuesAndFindsEveryImage) {
  const Annotated dataset({R"({"x":"b"})", R"({"x":true})", R"({"x":10})", R"({"x":false})", R"({"x":2})", "",
                           R"({"x":null})", R"({"y":1})", R"({"x":"a"})", R"({"x":"2"})", R"({"x":0.5})",
                           R"({"x":[1,2]})"});
  const std::vector<int64_t> images{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0};
  const ImageGroups groups(dataset, images, "x");
  std::vector<std::string> values;
  for (const ImageGroups::Group& group : groups.groups()) {
    values.push_back(group.value);
    EXPECT_EQ(group.is_true, group.value == "true");
  }
  EXPECT_EQ(values, (std::vector<std::string>{"none", "false", "true", "0.5", "2", "10", "[1,2]", "a", "b"}));
  const std::vector<std::string> expected{"b",    "true", "10", "false", "2",   "none",
                                          "none", "none", "a",  "2",     "0.5", "[1,2]"};
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(values[groups.group_of(static_cast<int64_t>(i))], expected[i]) << i;
}

TEST(ImageGroups, AWordIsNotTheValueTrue) {
  const Annotated dataset({R"({"x":"true"})"});
  const std::vector<int64_t> images{0};
  EXPECT_FALSE(ImageGroups(dataset, images, "x").groups().front().is_true);
}

TEST(ImageGroups, NamesWhatIsWrong) {
  const Annotated dataset({R"({"y":1,"a":2})", "", "[]", "{"});
  const std::vector<int64_t> good{0, 1}, list{0, 2}, torn{3};
  EXPECT_TRUE(testing::throws_error([&] { ImageGroups(dataset, good, "x"); }, ErrorKind::kConfig,
                                    {"evaluation.group_by: a field", "expected (a, y); got \"x\""}));
  for (const auto& images : {list, torn})
    EXPECT_TRUE(testing::throws_error([&] { ImageGroups(dataset, images, "y"); }, ErrorKind::kData,
                                      {"must be a JSON object; got ", concat("[image ", images.back(), ']')}));
}

}  // namespace
}  // namespace permafrost
