#pragma once
#include "tests/launch/training_fixture.h"

namespace permafrost {

/// The generated photographs with a question about each, and shards of either.
class VqaTraining : public Training {
 protected:
  /// VL-T5's format; question `without` has no answers.
  void write_questions(size_t without = 1000) const {
    const Json all = captions();
    Json list = Json::array();
    for (size_t i = 0; i < all["images"].size(); ++i) {
      const std::string name = all["images"][i]["file_name"];
      const std::string number = std::to_string(i);
      Json question{{"question_id", "q" + number}, {"img_id", name}, {"sent", "what is in image " + number}};
      if (i != without) question["label"] = {{"thing " + number, 1.0}, {"other", 0.3}};
      list.push_back(question);
    }
    write_file(photos() / "questions.json", json_text(list));
  }
  static std::string questions() { return " --set data.task=VQA --set data.format=VLT5 --set data.image_name=%s"; }
  std::string shards(const std::string& name) const {
    return " --set data.format=SHARDS --set data.shards=" + dir(name).string();
  }
  Outcome pack(const std::string& name, const std::string& more = "", bool elsewhere = false,
               const std::string& before = "") const {
    return run("data pack " + config() + " --set data.root=" + photos().string() + " --out " +
                   (elsewhere ? name : dir(name).string()) + " " + more,
               before);
  }
};

}  // namespace permafrost
