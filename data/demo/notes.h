#pragma once
#include <functional>
#include <string>

#include "core/base/philox.h"
#include "data/demo/scene.h"

namespace permafrost {

// What the language model reads. A bare caption teaches it words, but not to take them from anywhere: each word would
// be guessed. So most captions follow a note that says a part of them in other words, and each word of a note tells of
// both objects: the model learns to pick the half that fits its place in the sentence, which a visual token will later
// ask of it too.

inline constexpr double kBareShare = 0.15;      ///< of texts without a note
inline constexpr double kNoteWordShare = 0.85;  ///< each of a note's three words is in it with this probability

/// A caption, or a note, a line end and the caption:
///   "note redblue left circlesquare\na red circle left of a blue square"
/// The words, in any order: both colours, nearer first; both shapes; the first word of the relation.
std::string text_of(const SceneContent& content, Random& random);

/// Calls visit with notes that have between them every word of every note.
void for_each_note(const std::function<void(const std::string&)>& visit);

}  // namespace permafrost
