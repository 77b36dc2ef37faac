#include "data/demo/captions.h"

#include <initializer_list>

namespace permafrost {

namespace {

/// Without a stream, as concat has one: a scene takes a dozen of these.
std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (std::string_view part : parts) text += part;
  return text;
}

std::string color_name(const ObjectKind& kind) { return std::string(kSceneColors[kind.color].name); }
std::string shape_name(const ObjectKind& kind) { return std::string(kSceneShapes[kind.shape]); }
std::string_view name_of(Relation relation) { return kRelationNames[static_cast<size_t>(relation)]; }
std::string yes_or_no(bool yes) { return yes ? "yes" : "no"; }

std::string ask_color(const ObjectKind& kind) { return joined({"what colour is the ", shape_name(kind), "?"}); }
std::string ask_shape(const ObjectKind& kind) { return joined({"what shape is the ", color_name(kind), " object?"}); }
std::string ask_what(Relation relation, const ObjectKind& of) {
  return joined({"what is ", name_of(relation), " the ", phrase_of(of), "?"});
}
std::string ask_relation(const ObjectKind& a, Relation relation, const ObjectKind& b) {
  return joined({"is the ", shape_name(a), " ", name_of(relation), " the ", shape_name(b), "?"});
}
std::string ask_presence(const ObjectKind& kind) { return joined({"is there a ", phrase_of(kind), "?"}); }
constexpr std::string_view kAskNearer = "which object is nearer?", kAskFarther = "which object is farther?";

template <typename Visit>
void for_each_kind(const Visit& visit) {
  for (size_t shape = 0; shape < kSceneShapes.size(); ++shape)
    for (size_t color = 0; color < kSceneColors.size(); ++color) visit(ObjectKind{shape, color});
}

template <typename Visit>
void for_each_relation(const Visit& visit) {
  for (size_t i = 0; i < kRelationNames.size(); ++i) visit(static_cast<Relation>(i));
}

}  // namespace

std::string phrase_of(const ObjectKind& kind) { return joined({color_name(kind), " ", shape_name(kind)}); }

std::string caption_of(const SceneContent& content) {
  // "a", never "an": no colour begins with a vowel.
  return joined({"a ", phrase_of(content.nearer), " ", name_of(content.relation), " a ", phrase_of(content.farther)});
}

std::vector<SceneQuestion> questions_of(const SceneContent& content, Random& random) {
  const ObjectKind &a = content.nearer, &b = content.farther;
  const Relation relation = content.relation, turned = inverse(relation);
  std::vector<SceneQuestion> all;
  if (a.shape != b.shape) {
    all.push_back({ask_color(a), color_name(a)});
    all.push_back({ask_color(b), color_name(b)});
    const bool yes = random.next_below(2) == 1, from_a = random.next_below(2) == 1;
    const Relation asked = yes == from_a ? relation : turned;
    all.push_back({from_a ? ask_relation(a, asked, b) : ask_relation(b, asked, a), yes_or_no(yes)});
  }
  if (a.color != b.color) {
    all.push_back({ask_shape(a), shape_name(a)});
    all.push_back({ask_shape(b), shape_name(b)});
  }
  all.push_back({ask_what(relation, b), phrase_of(a)});
  all.push_back({ask_what(turned, a), phrase_of(b)});
  all.push_back({std::string(kAskNearer), phrase_of(a)});
  all.push_back({std::string(kAskFarther), phrase_of(b)});
  ObjectKind asked = random.next_below(2) == 1 ? a : b;
  if (random.next_below(2) == 1)  // one word of it changed: to say no takes a look at both
    do {
      asked = random.next_below(2) == 1 ? a : b;
      if (random.next_below(2) == 1)
        asked.shape = random.next_below(kSceneShapes.size());
      else
        asked.color = random.next_below(kSceneColors.size());
    } while (asked == a || asked == b);
  all.push_back({ask_presence(asked), yes_or_no(asked == a || asked == b)});
  return all;
}

std::vector<SceneQuestion> choose_questions(const SceneContent& content, Random& random) {
  std::vector<SceneQuestion> all = questions_of(content, random);
  for (size_t i = 0; i < kQuestionsPerScene; ++i) std::swap(all[i], all[i + random.next_below(all.size() - i)]);
  all.resize(kQuestionsPerScene);
  return all;
}

void for_each_caption(const std::function<void(const std::string&)>& text) {
  for_each_kind([&](const ObjectKind& a) {
    for_each_kind([&](const ObjectKind& b) {
      if (a != b) for_each_relation([&](Relation relation) { text(caption_of({a, b, relation})); });
    });
  });
}

void for_each_question_and_answer(const std::function<void(const SceneQuestion&)>& question) {
  for_each_kind([&](const ObjectKind& a) {
    question({ask_color(a), color_name(a)});
    question({ask_shape(a), shape_name(a)});
    question({ask_presence(a), yes_or_no(true)});
    question({std::string(kAskNearer), phrase_of(a)});
    question({std::string(kAskFarther), phrase_of(a)});
    for_each_relation([&](Relation relation) { question({ask_what(relation, a), phrase_of(a)}); });
    for_each_kind([&](const ObjectKind& b) {
      if (a.color == b.color && a.shape != b.shape)
        for_each_relation([&](Relation relation) { question({ask_relation(a, relation, b), yes_or_no(false)}); });
    });
  });
}

}  // namespace permafrost
