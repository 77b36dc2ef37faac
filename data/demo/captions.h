#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/philox.h"
#include "data/demo/scene.h"

namespace permafrost {

/// "red circle".
std::string phrase_of(const ObjectKind& kind);
/// The one caption of a scene: "a red circle left of a blue square". Its subject is the nearer object.
std::string caption_of(const SceneContent& content);

/// A question as a person would type it, "?" included, and its only right answer, of lower-case words.
struct SceneQuestion {
  std::string question, answer;
};

/// Every question that the templates ask of a scene; only those that have one answer.
///   what colour is the SHAPE?                         (where the shapes differ)
///   what shape is the COLOUR object?                  (where the colours differ)
///   what is RELATION the COLOUR SHAPE?                the other object, as "red circle"
///   which object is nearer? / which object is farther?
///   is the SHAPE RELATION the SHAPE?                  yes / no (where the shapes differ)
///   is there a COLOUR SHAPE?                          yes / no
/// `random` chooses what the last two ask for.
std::vector<SceneQuestion> questions_of(const SceneContent& content, Random& random);

/// How many of them go with an image.
inline constexpr size_t kQuestionsPerScene = 4;
/// So many, chosen at random.
std::vector<SceneQuestion> choose_questions(const SceneContent& content, Random& random);

/// Calls text with every caption there is, then with every question and every answer.
void for_each_caption(const std::function<void(const std::string&)>& text);
void for_each_question_and_answer(const std::function<void(const SceneQuestion&)>& question);

}  // namespace permafrost
