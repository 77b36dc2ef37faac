#include "configs/validate_evaluation.h"

#include <cmath>

#include "configs/section.h"

namespace permafrost::config {

void check_evaluation(const Config& config, Problems& problems) {
  const Evaluation& evaluation = config.evaluation();
  const Section e("evaluation", problems);
  e.whole("batch", evaluation.batch(), 1, 4096);
  e.whole("samples", evaluation.samples(), 0, kMost);

  const Decoding& decoding = evaluation.decoding();
  const Section d("evaluation.decoding", problems);
  d.whole("beams", decoding.beams(), 1, 64);
  if (!std::isfinite(decoding.length_penalty()))
    problems.expected(d.at("length_penalty"), "a finite number", decoding.length_penalty());
  const bool most = d.whole("max_new_tokens", decoding.max_new_tokens(), 1, 1 << 20);
  if (d.whole("min_new_tokens", decoding.min_new_tokens(), 0, 1 << 20) && most &&
      decoding.min_new_tokens() > decoding.max_new_tokens())
    problems.expected(d.at("min_new_tokens"), concat("at most max_new_tokens = ", decoding.max_new_tokens()),
                      decoding.min_new_tokens());
  if (decoding.has_max_length()) d.whole("max_length", decoding.max_length(), 1, 1 << 20);
}

}  // namespace permafrost::config
