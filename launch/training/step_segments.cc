#include "launch/training/step_segments.h"

#include <bit>
#include <utility>

#include "core/base/check.h"

namespace permafrost {

namespace {

size_t bit_of(VotedWork work) { return size_t{1} << static_cast<unsigned>(work); }

template <typename Visit>
void visit_works(size_t segment, Visit visit) {
  for (int i = 0; i < kVotedWorks; ++i)
    if (const auto work = static_cast<VotedWork>(i); segment & bit_of(work)) visit(work);
}

std::string name_of_segment(size_t segment) {
  std::string works;
  visit_works(segment, [&](VotedWork work) { works += concat(works.empty() ? "" : ", ", to_string(work)); });
  return concat("work behind the vote (", works, ")");
}

}  // namespace

const char* to_string(VotedWork work) {
  switch (work) {
    case VotedWork::kConvertSums:
      return "sums to gradients";
    case VotedWork::kScaleSlice:
      return "scale";
    case VotedWork::kNormBlocks:
      return "norm blocks";
    case VotedWork::kNorm:
      return "norm";
    case VotedWork::kUpdate:
      break;
  }
  return "update";
}

StepSegments::StepSegments(const Context& context, std::function<void(VotedWork)> give)
    : give_(std::move(give)), graphs_(context, [](WorkGraphs::Key key) { return name_of_segment(key.work); }) {}

void StepSegments::begin(bool graphs) {
  collects_ = graphs;
  segment_ = 0;  // of a step that ended in an error
}

void StepSegments::add(VotedWork work) {
  if (!collects_) return give_(work);
  PERMAFROST_CHECK(bit_of(work) > segment_, "step: works must come in their order; got ", to_string(work), " behind ",
                   name_of_segment(segment_));
  segment_ |= bit_of(work);
}

void StepSegments::end_segment() {
  const size_t segment = std::exchange(segment_, 0);
  const auto give = [this, segment] { visit_works(segment, give_); };
  if (std::popcount(segment) < 2) return give();
  graphs_.run({segment}, give);
}

}  // namespace permafrost
