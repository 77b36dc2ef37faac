// Everything that an annotation says, derived again from the parts of it that say less.
#include <cmath>
#include <map>
#include <set>

#include "core/base/json.h"
#include "data/demo/annotation.h"
#include "tests/data/support.h"

namespace permafrost::testing {
namespace {

struct Annotated {
  Scene scene;
  DrawnScene drawn;
  Json annotation;
};

void for_each_annotated(const std::function<void(const Annotated&)>& check) {
  Annotated one;
  for (SceneSplit split : {SceneSplit::kPretrain, SceneSplit::kTrain, SceneSplit::kTest})
    for (int64_t i = 0; i < 500; ++i) {
      one.scene = sample_scene(7, split, i);
      draw_scene(one.scene, one.drawn);
      Random random(7, RandomPurpose::kSynthetic, 0, static_cast<uint64_t>(i));
      one.annotation = parse_json(annotation_of(one.scene, one.drawn, questions_of(one.scene.content, random)));
      check(one);
      if (::testing::Test::HasFailure()) {
        ADD_FAILURE() << json_text(one.annotation);
        return;
      }
    }
}

/// The mask of an object, row by row, from its run lengths.
SceneMask decode_mask(const Json& mask) {
  const int height = mask["size"][0].get<int>(), width = mask["size"][1].get<int>();
  SceneMask pixels(static_cast<size_t>(width * height), 0);
  int at = 0;
  bool inside = false;
  for (const Json& count : mask["counts"]) {
    for (int i = 0; i < count.get<int>(); ++i, ++at)
      pixels[static_cast<size_t>(at % height * width + at / height)] = inside;
    inside = !inside;
  }
  EXPECT_EQ(at, width * height);
  return pixels;
}

TEST(DemoAnnotation, MasksFitBoxesAreasAndDepth) {
  double least_visible = 1;
  bool some_hidden = false;
  for_each_annotated([&](const Annotated& one) {
    SceneMask both(size_t{kSceneSize} * kSceneSize, 0);
    for (int depth = 0; depth < 2; ++depth) {
      const Json& object = one.annotation["objects"][static_cast<size_t>(depth)];
      EXPECT_EQ(object["depth"], depth);
      const SceneMask mask = decode_mask(object["mask"]);
      EXPECT_EQ(std::ranges::count(mask, 1), object["visible_area"].get<int>());
      const PixelBox box = box_of(mask);
      const auto whole = object["box"].get<std::array<int, 4>>();
      EXPECT_TRUE(box.x >= whole[0] && box.y >= whole[1] && box.x + box.width <= whole[0] + whole[2] &&
                  box.y + box.height <= whole[1] + whole[3]);
      if (depth == 0) {
        EXPECT_EQ((std::array{box.x, box.y, box.width, box.height}), whole);
        EXPECT_EQ(object["area"], object["visible_area"]);
      }
      EXPECT_LE(object["area"].get<int>(), whole[2] * whole[3]);
      const double visible = object["visible_area"].get<double>() / object["area"].get<double>();
      least_visible = std::min(least_visible, visible);
      some_hidden = some_hidden || visible < 1;
      for (size_t i = 0; i < mask.size(); ++i) both[i] = static_cast<uint8_t>(both[i] + mask[i]);
    }
    EXPECT_EQ(std::ranges::count(both, 2), 0) << "a pixel shows one object only";
  });
  EXPECT_GE(least_visible, 0.6);
  EXPECT_TRUE(some_hidden);
}

TEST(DemoAnnotation, RelationsHoldBetweenBoxes) {
  for_each_annotated([](const Annotated& one) {
    const auto middle = [&](size_t depth, size_t axis) {
      const Json& box = one.annotation["objects"][depth]["box"];
      return box[axis].get<double>() + box[axis + 2].get<double>() / 2;
    };
    const double dx = middle(0, 0) - middle(1, 0), dy = middle(0, 1) - middle(1, 1);
    const std::string relation = std::abs(dx) > std::abs(dy) ? dx < 0 ? "left of" : "right of"
                                 : dy < 0                    ? "above"
                                                             : "below";
    EXPECT_EQ(one.annotation["relation"], relation);
    // 2 between the centres, less a pixel of each object for its edges and a tenth of a radius where a triangle hangs.
    const double along = std::max(std::abs(dx), std::abs(dy)), across = std::min(std::abs(dx), std::abs(dy));
    EXPECT_GE(along, 1.3 * across);
    const auto extent = [&](size_t depth) {
      const Json& box = one.annotation["objects"][depth]["box"];
      return std::max(box[2].get<int>(), box[3].get<int>());
    };
    EXPECT_GT(extent(0), extent(1));
  });
}

TEST(DemoAnnotation, CaptionAndLabelsAgreeWithTheObjects) {
  for_each_annotated([](const Annotated& one) {
    const Json& all = one.annotation;
    std::string caption;
    size_t next = 0;
    for (size_t depth = 0; depth < 2; ++depth) {
      const Json& object = all["objects"][depth];
      const auto shape = object["shape"].get<std::string>(), color = object["color"].get<std::string>();
      if (depth == 1) caption += " " + all["relation"].get<std::string>() + " ";
      caption += "a " + color + " " + shape;  // no colour begins with a vowel
      EXPECT_EQ(kSceneShapes.at(all["labels"][next++].get<size_t>()), shape);
      EXPECT_EQ(kSceneColors.at(all["labels"][next++].get<size_t>()).name, color);
      for (size_t axis : {0, 1}) {
        const int label = all["labels"][next++].get<int>();
        const double at = object["center"][axis].get<double>();
        EXPECT_LE(std::abs(at - label * 8), 4.01) << at;
      }
    }
    EXPECT_EQ(next, all["labels"].size());
    EXPECT_EQ(next, scene_label_heads().size());
    for (size_t i = 0; i < next; ++i) EXPECT_LT(all["labels"][i].get<int64_t>(), scene_label_heads().at(i).classes);
    EXPECT_EQ(all["caption"], caption);
    EXPECT_EQ(all["held_out"], is_held_out(caption));
    EXPECT_EQ(all["id"], one.scene.id);
    EXPECT_EQ(all["split"], to_string(one.scene.split));
  });
}

/// Objects that a phrase such as "red", "circle" or "red circle" fits, as indices.
std::vector<size_t> fitting(const Json& objects, const std::string& phrase) {
  std::vector<size_t> found;
  for (size_t i = 0; i < objects.size(); ++i) {
    const auto shape = objects[i]["shape"].get<std::string>(), color = objects[i]["color"].get<std::string>();
    if (phrase == shape || phrase == color || phrase == color + " " + shape) found.push_back(i);
  }
  return found;
}

bool holds(const Json& objects, size_t a, const std::string& relation, size_t b) {
  const double dx = objects[a]["center"][0].get<double>() - objects[b]["center"][0].get<double>();
  const double dy = objects[a]["center"][1].get<double>() - objects[b]["center"][1].get<double>();
  const std::map<std::string, double> along = {{"left of", -dx}, {"right of", dx}, {"above", -dy}, {"below", dy}};
  return along.at(relation) > std::max(std::abs(dx), std::abs(dy)) - 1e-9;
}

/// Takes `words` from the front of a text.
bool take(std::string& text, const std::string& words) {
  if (!text.starts_with(words)) return false;
  text.erase(0, words.size());
  return true;
}

/// The relation at the start of a text, which is taken from it; empty when there is none.
std::string take_relation(std::string& text) {
  for (std::string_view name : kRelationNames)
    if (take(text, std::string(name) + " the ")) return std::string(name);
  return {};
}

std::string phrase_at(const Json& objects, size_t i) {
  return objects[i]["color"].get<std::string>() + " " + objects[i]["shape"].get<std::string>();
}

/// Every answer that a question has, found by looking at the objects; `kind` gets the template.
std::set<std::string> answers_to(std::string question, const Json& objects, std::string& kind) {
  EXPECT_TRUE(question.ends_with("?"));
  question.pop_back();
  const std::array<std::string, 2> phrases = {phrase_at(objects, 0), phrase_at(objects, 1)};
  std::set<std::string> answers;
  if (take(question, "what colour is the ")) {
    kind = "colour";
    for (size_t i : fitting(objects, question)) answers.insert(objects[i]["color"].get<std::string>());
  } else if (take(question, "what shape is the ")) {
    kind = "shape";
    for (size_t i : fitting(objects, question.substr(0, question.find(" object"))))
      answers.insert(objects[i]["shape"].get<std::string>());
  } else if (take(question, "what is ")) {
    kind = "what";
    const std::string relation = take_relation(question);
    for (size_t b : fitting(objects, question))
      if (holds(objects, 1 - b, relation, b)) answers.insert(phrases[1 - b]);
  } else if (take(question, "which object is ")) {
    kind = question;
    const bool first = objects[0]["depth"].get<int>() < objects[1]["depth"].get<int>();
    answers.insert(phrases[(question == "nearer") == first ? 0 : 1]);
  } else if (take(question, "is there a ")) {
    kind = "presence";
    answers.insert(fitting(objects, question).empty() ? "no" : "yes");
  } else if (take(question, "is the ")) {
    kind = "relation";
    const size_t space = question.find(' ');
    const std::string subject = question.substr(0, space);
    question.erase(0, space + 1);
    const std::string relation = take_relation(question);
    for (size_t a : fitting(objects, subject))
      for (size_t b : fitting(objects, question)) answers.insert(holds(objects, a, relation, b) ? "yes" : "no");
  }
  return answers;
}

TEST(DemoQuestions, HaveOneAnswerAndItIsTheOneThatTheObjectsGive) {
  std::map<std::string, std::set<std::string>> seen;  // template: answers
  for_each_annotated([&](const Annotated& one) {
    EXPECT_GE(one.annotation["questions"].size(), kQuestionsPerScene);
    for (const Json& entry : one.annotation["questions"]) {
      std::string kind;
      const auto answers = answers_to(entry["question"].get<std::string>(), one.annotation["objects"], kind);
      EXPECT_EQ(answers, std::set{entry["answer"].get<std::string>()}) << json_text(entry);
      seen[kind].insert(answers.begin(), answers.end());
    }
  });
  EXPECT_EQ(seen.size(), 7u);
  for (const char* kind : {"presence", "relation"}) EXPECT_EQ(seen[kind], (std::set<std::string>{"no", "yes"}));
  EXPECT_EQ(seen["colour"].size(), kSceneColors.size());
  EXPECT_EQ(seen["shape"].size(), kSceneShapes.size());
}

TEST(DemoQuestions, ChosenOnesAreDistinctAndAmongAll) {
  std::set<std::string> everything;
  for_each_question_and_answer([&](const SceneQuestion& entry) { everything.insert(entry.question); });
  for (int64_t i = 0; i < 500; ++i) {
    Random random(3, RandomPurpose::kSynthetic, 9, static_cast<uint64_t>(i));
    std::set<std::string> chosen;
    for (const SceneQuestion& entry : choose_questions(sample_content(3, SceneSplit::kTest, i), random)) {
      chosen.insert(entry.question);
      EXPECT_TRUE(everything.contains(entry.question)) << entry.question;
    }
    EXPECT_EQ(chosen.size(), kQuestionsPerScene);
  }
}

}  // namespace
}  // namespace permafrost::testing
