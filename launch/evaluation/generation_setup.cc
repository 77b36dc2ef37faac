#include "launch/evaluation/generation_setup.h"

#include <algorithm>

namespace permafrost {

namespace {

bool keeps_keys(const config::Decoding& decoding, const EpalmConfig& model, std::string& note) {
  if (decoding.cache() == config::Decoding::OFF) return false;
  if (epalm_cache(model) != EpalmCache::kNone) return true;
  const std::string why = concat(
      "with the published row of the visual token, ", model.text.layers - model.end,
      " text layers behind the window read what it saw of later words, so all their keys change with every token "
      "(at most one layer may follow the window, or quirks.vis_row must be CAUSAL)");
  if (decoding.cache() == config::Decoding::ON)
    fail(ErrorKind::kConfig, "evaluation.decoding.cache: AUTO or OFF expected for this model; got ON: ", why);
  note = "decoding: no keys and values are kept, every token computes its whole text again: " + why;
  return false;
}

}  // namespace

SearchPrompt GenerationSetup::prompt(int64_t length) const {
  const int64_t room = max_length ? *max_length - length : max_new_tokens;
  return {length, std::max<int64_t>(0, std::min(max_new_tokens, room))};
}

GenerationSetup generation_setup(const config::Config& config, int64_t longest_prompt, int32_t end_id, int32_t pad_id) {
  const config::Decoding& decoding = config.evaluation().decoding();
  GenerationSetup setup;
  setup.model = epalm_config(config);
  setup.search.beams = decoding.beams();
  setup.search.length_penalty = decoding.length_penalty();
  setup.search.normalisation = decoding.normalisation() == config::Decoding::FULL
                                   ? SearchConfig::Normalisation::kFull
                                   : SearchConfig::Normalisation::kGenerated;
  setup.search.early_stopping = decoding.early_stopping();
  setup.search.min_new_tokens = decoding.min_new_tokens();
  setup.search.end_id = end_id;
  setup.search.pad_id = pad_id;
  setup.padding = decoding.padding() == config::Decoding::CLEAN ? DecodingPadding::kClean : DecodingPadding::kPublished;
  setup.cached = keeps_keys(decoding, setup.model, setup.note);
  setup.max_new_tokens = decoding.max_new_tokens();
  if (decoding.has_max_length()) setup.max_length = decoding.max_length();
  int64_t fed = longest_prompt + setup.max_new_tokens - 1;
  if (setup.max_length) fed = std::max(longest_prompt, std::min(fed, *setup.max_length - 1));
  setup.shape = {config.evaluation().batch(), decoding.beams(), longest_prompt, fed};
  if (fed > setup.model.text.max_positions)
    fail(ErrorKind::kConfig, "evaluation.decoding.max_new_tokens: prompt and new tokens must fit the text model's ",
         setup.model.text.max_positions, " positions; got ", longest_prompt, " tokens of the longest prompt and ",
         setup.max_new_tokens);
  if (setup.model.text.vocab < 2 * setup.search.beams)
    fail(ErrorKind::kConfig, "evaluation.decoding.beams: at most half of the text model's ", setup.model.text.vocab,
         " tokens expected; got ", setup.search.beams);
  return setup;
}

Plan generation_plan(const config::Config& config, const PlanChoices& choices, const GenerationSetup& setup,
                     const Plan* training) {
  PlanChoices forward = choices;
  forward.program.forward_only = true;
  PlanRequest request = plan_request(config, forward);
  const DType compute = training ? training->compute : compute_dtype(config);
  request.build_graph = [&setup, compute](int64_t number) {
    const bool first = number == 1;
    const EpalmProgram program = setup.cached ? (first ? EpalmProgram::kPrefill : EpalmProgram::kStep)
                                              : (first ? EpalmProgram::kSee : EpalmProgram::kWhole);
    return build_epalm_decoding(setup.model, compute, setup.shape, program);
  };
  request.buckets = {1, 2};
  request.lockstep = true;
  request.allow_all_frozen = true;
  request.micro_batches = choices.world.ranks;
  request.prefetched_inputs = 0;
  if (training) {
    request.policies.clear();
    for (const UnitPlan& unit : training->units)
      if (unit.weight_bytes > 0)
        request.policies.push_back(
            {unit.name, unit.policy == Policy::kSharded ? PolicyChoice::kSharded : PolicyChoice::kResident});
  }
  return make_plan(request);
}

}  // namespace permafrost
