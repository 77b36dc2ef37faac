#include "data/demo/notes.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/demo/captions.h"

namespace permafrost {

namespace {

constexpr const char* kNote = "note";

/// Two cells along one axis.
std::string place_word(char axis, int nearer, int farther) {
  return {axis, static_cast<char>('a' + nearer), static_cast<char>('a' + farther)};
}

std::string color_word(const ObjectKind& nearer, const ObjectKind& farther) {
  return std::string(kSceneColors[nearer.color].name).append(kSceneColors[farther.color].name);
}

std::string shape_word(const ObjectKind& nearer, const ObjectKind& farther) {
  return std::string(kSceneShapes[nearer.shape]).append(kSceneShapes[farther.shape]);
}

}  // namespace

std::string text_of(const Scene& scene, Random& random) {
  const std::string caption = caption_of(scene.content);
  if (random.next_double() < kBareShare) return caption;
  const auto& [nearer, farther] = scene.objects;
  std::array<std::string, 4> words{color_word(nearer.kind, farther.kind), shape_word(nearer.kind, farther.kind),
                                   place_word('x', cell_of(nearer.x), cell_of(farther.x)),
                                   place_word('y', cell_of(nearer.y), cell_of(farther.y))};
  for (size_t i = 0; i + 1 < words.size(); ++i) std::swap(words[i], words[i + random.next_below(words.size() - i)]);
  std::string text = kNote;
  for (const std::string& word : words)
    if (random.next_double() < kNoteWordShare) text += " " + word;
  return text + "\n" + caption;
}

void for_each_note(const std::function<void(const std::string&)>& visit) {
  constexpr int kMost = static_cast<int>(std::max({kSceneShapes.size(), kSceneColors.size(), size_t{kCellsPerSide}}));
  const auto kind = [](int i) {
    return ObjectKind{static_cast<size_t>(i) % kSceneShapes.size(), static_cast<size_t>(i) % kSceneColors.size()};
  };
  for (int a = 0; a < kMost; ++a)
    for (int b = 0; b < kMost; ++b) {
      std::string text = kNote;
      for (const std::string& word : {color_word(kind(a), kind(b)), shape_word(kind(a), kind(b)),
                                      place_word('x', a % kCellsPerSide, b % kCellsPerSide),
                                      place_word('y', a % kCellsPerSide, b % kCellsPerSide)})
        text += " " + word;
      visit(text + "\n");
    }
}

}  // namespace permafrost
