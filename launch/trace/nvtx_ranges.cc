#include "launch/trace/nvtx_ranges.h"

#include "launch/trace/step_description.h"

namespace permafrost {

NvtxRanges::NvtxRanges(const Plan& plan, const RangeCalls& calls) : calls_(calls) {
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket) {
    std::vector<std::string>& names = steps_.emplace_back();
    for (size_t step = 0; step < plan.programs[bucket].steps.size(); ++step)
      names.push_back(title_of(describe_step(plan, bucket, step)));
  }
  for (const UnitPlan& unit : plan.units) fills_.push_back("gather " + unit.name);
}

void NvtxRanges::push(const char* name) {
  calls_.push(name);
  ++depth_;
}

void NvtxRanges::pop_to(int depth) {
  for (; depth_ > depth; --depth_) calls_.pop();
}

void NvtxRanges::begin_program(size_t bucket) { bucket_ = bucket; }

void NvtxRanges::begin_gather(size_t /*step*/) { push("wait for sharded weights"); }
void NvtxRanges::end_gather(size_t /*step*/) { pop_to(depth_ - 1); }

void NvtxRanges::begin_step(size_t step) { push(steps_[bucket_][step].c_str()); }
void NvtxRanges::end_step(size_t /*step*/) { pop_to(depth_ - 1); }

void NvtxRanges::begin_fill(size_t unit) { calls_.push(fills_[unit].c_str()); }
void NvtxRanges::end_fill(size_t /*unit*/) { calls_.pop(); }

void NvtxRanges::begin_phase(TrainerPhase phase, int64_t /*number*/) {
  push(to_string(phase));
  if (phase == TrainerPhase::kProgram) program_depth_ = depth_;
}

void NvtxRanges::end_phase(TrainerPhase phase) {
  if (phase == TrainerPhase::kProgram) pop_to(program_depth_);
  pop_to(depth_ - 1);
}

}  // namespace permafrost
