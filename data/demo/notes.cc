#include "data/demo/notes.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/demo/captions.h"

namespace permafrost {

namespace {

constexpr const char* kNote = "note";

/// Colours, shapes, relation.
std::array<std::string, 3> note_words(const SceneContent& content) {
  const std::string_view relation = kRelationNames[static_cast<size_t>(content.relation)];
  std::string colors(kSceneColors[content.nearer.color].name), shapes(kSceneShapes[content.nearer.shape]);
  colors += kSceneColors[content.farther.color].name;
  shapes += kSceneShapes[content.farther.shape];
  return {colors, shapes, std::string(relation.substr(0, relation.find(' ')))};
}

}  // namespace

std::string text_of(const SceneContent& content, Random& random) {
  const std::string caption = caption_of(content);
  if (random.next_double() < kBareShare) return caption;
  std::array<std::string, 3> words = note_words(content);
  for (size_t i = 0; i + 1 < words.size(); ++i) std::swap(words[i], words[i + random.next_below(words.size() - i)]);
  std::string text = kNote;
  for (const std::string& word : words)
    if (random.next_double() < kNoteWordShare) text += " " + word;
  return text + "\n" + caption;
}

void for_each_note(const std::function<void(const std::string&)>& visit) {
  constexpr size_t kMost = std::max(kSceneShapes.size(), kSceneColors.size());
  for (size_t a = 0; a < kMost; ++a)
    for (size_t b = 0; b < kMost; ++b)
      for (size_t relation = 0; relation < kRelationNames.size(); ++relation) {
        std::string text = kNote;
        const ObjectKind first{a % kSceneShapes.size(), a % kSceneColors.size()};
        const ObjectKind second{b % kSceneShapes.size(), b % kSceneColors.size()};
        for (const std::string& word : note_words({first, second, static_cast<Relation>(relation)})) text += " " + word;
        visit(text + "\n");
      }
}

}  // namespace permafrost
