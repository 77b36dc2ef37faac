#pragma once
#include <string>
#include <vector>

#include "tests/launch/training_fixture.h"

namespace permafrost {

/// Photographs, a few steps of training on them, and questions about them.
class EvaluationTest : public Training {
 protected:
  void SetUp() override {
    Training::SetUp();
    ASSERT_TRUE(ends(train(), 0, {}));
    OrderedJson questions = OrderedJson::array();
    for (int id = 0; id < 7; ++id) {
      OrderedJson question;
      question["question_id"] = 100 + id;
      question["img_id"] = concat("00000", 2 * (id % 4));
      question["sent"] = std::string("what") + (id % 2 ? " is left?" : " is in the picture, and where is it?");
      question["label"] = OrderedJson::object({{"a red circle", 1.0}, {"circle", 0.3}});
      questions.push_back(question);
    }
    write_file(photos() / "questions.json", json_text(questions, 1));
  }

  std::string model() const { return config() + " --set data.root=" + photos().string(); }
  std::string checkpoint() const { return (dir() / "checkpoints" / "step-00000004").string(); }
  /// Common settings: few tokens, small batches, fp32.
  static std::string settings() {
    return " --set precision.compute=FP32 --set evaluation.decoding.max_new_tokens=6 --set evaluation.batch=2"
           " --set evaluation.decoding.beams=3";
  }
  /// The same images asked questions. Odd images are .png.
  static std::string about_questions() {
    return " --set data.task=VQA --set data.format=VLT5 --set data.image_name=%s.jpg --set data.image_policy=SKIP"
           " --set loss.tokens=ALL";
  }
  Outcome eval(const std::string& more, const std::string& before = "") const {
    return run("eval " + model() + settings() + " --adapter " + checkpoint() + " " + more, before);
  }
  Outcome generate(const std::string& more) const {
    return run("generate " + model() + settings() + " --adapter " + checkpoint() + " " + more);
  }
  std::string image(int number = 0) const {
    return (photos() / "images" / ("00000" + std::to_string(number) + (number % 2 ? ".png" : ".jpg"))).string();
  }
};

}  // namespace permafrost
