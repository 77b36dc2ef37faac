#pragma once
#include <functional>
#include <string>

#include "core/base/philox.h"
#include "data/demo/scene.h"

namespace permafrost {

// What the language model reads. A bare caption teaches it words, but not to take them from anywhere: each word would
// be guessed. So most captions follow a note that says a part of them in other words, and each word of a note tells of
// both objects: the model learns to pick the half that fits its place in the sentence, and to conclude the relation
// from coarse positions, which a visual token will later ask of it too.

inline constexpr double kBareShare = 0.15;      ///< of texts without a note
inline constexpr double kNoteWordShare = 0.85;  ///< each of a note's four words is in it with this probability

/// A caption, or a note, a line end and the caption:
///   "note redblue ycc xce circlesquare\na red circle left of a blue square"
/// The words, in any order, the nearer object's half first: colours; shapes; columns of the raster (x and two letters,
/// a being the leftmost); rows (y and two letters, a being the uppermost).
std::string text_of(const Scene& scene, Random& random);

/// Calls visit with notes that have between them every word of every note.
void for_each_note(const std::function<void(const std::string&)>& visit);

}  // namespace permafrost
