#include "parallel/plan/check_gathers.h"

#include <map>

#include "core/base/check.h"
#include "core/base/narrow.h"

namespace permafrost {

namespace {

class GatherReplay {
 public:
  GatherReplay(const Plan& plan, size_t bucket, std::vector<std::string>& problems)
      : plan_(plan), graph_(plan.graphs[bucket]), program_(plan.programs[bucket]), problems_(problems) {}

  void run() {
    for (step_ = 0; step_ < std::ssize(program_.steps); ++step_) {
      for (const Gather& gather : program_.gathers) {
        if (gather.start_step == step_ && !place(gather)) return;
        if (gather.start_step == step_) content_[gather.slot] = kUnderWay;
        if (gather.first_use == step_) content_[gather.slot] = gather.unit;
      }
      read(program_.steps[static_cast<size_t>(step_)]);
    }
  }

 private:
  static constexpr int kUnderWay = -1;

  template <typename... Args>
  void problem(const Args&... args) {
    problems_.push_back(concat("step ", step_, ": ", args...));
  }

  /// Slot and unit exist, and the unit fits.
  bool place(const Gather& gather) {
    const bool known = gather.slot >= 0 && gather.slot < kGatherSlots && gather.unit >= 0 &&
                       gather.unit < std::ssize(plan_.frozen_units) && gather.first_use >= gather.start_step;
    if (!known) {
      problem("gather of unit ", gather.unit, " into slot ", gather.slot, " for step ", gather.first_use);
      return false;
    }
    const FrozenUnit& unit = plan_.frozen_units[static_cast<size_t>(gather.unit)];
    if (unit.bytes > plan_.slot_bytes[static_cast<size_t>(gather.slot)])
      problem("unit ", gather.unit, " does not fit its slot");
    if (!unit.sharded) problem("unit ", gather.unit, " is gathered, but resident");
    return true;
  }

  void read(const PlanStep& step) {
    const OpInfo& op = graph_.ops()[static_cast<size_t>(step.op)];
    for (size_t i = 0; i < step.params.size(); ++i) {
      const TensorRef& ref = step.params[i];
      if (ref.region == Region::kNone) continue;
      const ParamPlan& param = plan_.params[static_cast<size_t>(op.params[i])];
      if (param.trainable) {
        if (ref.region != Region::kWorking) problem(param.name, " trains, but is not read from the working copies");
        continue;
      }
      if (ref.spec != param.placement.stored) problem(param.name, " is read as ", ref.spec);
      expect(param, ref);
    }
  }

  void expect(const ParamPlan& param, const TensorRef& ref) {
    const FrozenUnit& unit = plan_.frozen_units[static_cast<size_t>(param.unit)];
    const bool gathered = unit.sharded && plan_.gather.uses_slots();
    if (ref.region != (gathered ? Region::kSlots : Region::kFrozen))
      return problem(param.name, gathered ? " must be read from a slot" : " must be read where it is stored");
    if (!gathered) {
      if (ref.offset != param.placement.offset) problem(param.name, " is read from ", ref.offset);
      return;
    }
    const int slot = ref.offset < plan_.slot_bytes[0] ? 0 : 1;
    const auto found = content_.find(slot);
    if (found == content_.end() || found->second != param.unit)
      return problem(param.name, " is read from slot ", slot, ", which ",
                     found == content_.end()      ? "holds nothing"
                     : found->second == kUnderWay ? "is being filled"
                                                  : concat("holds unit ", found->second));
    const int64_t begin = slot == 0 ? 0 : plan_.slot_bytes[0];
    if (ref.offset - begin != param.placement.offset - unit.begin)
      problem(param.name, " is not at ", ref.offset - begin, " of its slot");
  }

  const Plan& plan_;
  const Graph& graph_;
  const Program& program_;
  std::vector<std::string>& problems_;
  std::map<int, int> content_;  // slot -> unit
  int64_t step_ = 0;
};

}  // namespace

std::vector<std::string> check_gathers(const Plan& plan) {
  std::vector<std::string> problems;
  for (size_t bucket = 0; bucket < plan.programs.size(); ++bucket) GatherReplay(plan, bucket, problems).run();
  return problems;
}

}  // namespace permafrost
