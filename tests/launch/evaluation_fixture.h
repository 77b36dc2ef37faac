#pragma once
#include <string>
#include <vector>

#include "tests/launch/caption_shards.h"
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
  /// Six questions in VQAv2's own format, of which the first four have `said` among their ten answers: 1 to 4 times.
  void write_vqav2(const std::vector<std::string>& said) const {
    Json questions{{"questions", Json::array()}}, annotations{{"annotations", Json::array()}};
    for (size_t i = 0; i < 6; ++i) {
      questions["questions"].push_back(
          {{"question_id", 50 + i}, {"image_id", 2 * i}, {"question", i % 2 ? "what is left?" : "is it red?"}});
      Json answers = Json::array();
      for (size_t n = 0; n < 10; ++n)
        answers.push_back({{"answer", i < said.size() && i < 4 && n <= i ? said[i] : "another thing"}});
      annotations["annotations"].push_back(
          {{"question_id", 50 + i}, {"answers", answers}, {"question_type", i % 2 ? "what is" : "is it"}});
    }
    write_file(photos() / "vqav2_questions.json", json_text(questions));
    write_file(photos() / "vqav2_annotations.json", json_text(annotations));
  }
  static std::string on_vqav2() {
    return " --set evaluation.data.task=VQA --set evaluation.data.format=VQAV2 --set "
           "evaluation.data.image_name=%06d.jpg"
           " --set evaluation.data.questions=vqav2_questions.json"
           " --set evaluation.data.annotations=vqav2_annotations.json ";
  }
  Outcome eval(const std::string& more, const std::string& before = "") const {
    return run("eval " + model() + settings() + " --adapter " + checkpoint() + " " + more, before);
  }
  Outcome generate(const std::string& more) const {
    return run("generate " + model() + settings() + " --adapter " + checkpoint() + " " + more);
  }
  void write_shards(const std::string& name, const std::vector<std::string>& said,
                    const std::vector<std::string>& annotations) const {
    write_caption_shard(photos(), folder_ / name, said, annotations);
  }
  std::string on_shards(const std::string& name) const {
    return " --set evaluation.data.format=SHARDS --set evaluation.data.shards=" + (folder_ / name).string() + " ";
  }
  std::vector<std::string> texts_in(const std::filesystem::path& results) const {
    std::vector<std::string> texts;
    for (const Json& entry : parse_json(read_file(results))) texts.push_back(entry["caption"]);
    return texts;
  }
  /// Captions of which every second one is what the model says.
  std::vector<std::string> half_right_captions() const {
    EXPECT_TRUE(ends(eval("--out " + (folder_ / "said").string()), 0, {}));
    std::vector<std::string> said = texts_in(folder_ / "said" / "results.json");
    EXPECT_EQ(said.size(), 12u);
    for (size_t i = 0; i < said.size(); i += 2) said[i] = "what it does not say";
    return said;
  }
  /// Of images 0 to 3 `true`, 4 to 8 `false`, the others nothing.
  static std::vector<std::string> held_out_annotations() {
    std::vector<std::string> all(12);
    for (size_t i = 0; i < 9; ++i) all[i] = i < 4 ? R"({"held_out":true,"kind":2})" : R"({"held_out":false,"kind":10})";
    return all;
  }
  std::string image(int number = 0) const { return sample_photo(photos(), number).string(); }
};

}  // namespace permafrost
