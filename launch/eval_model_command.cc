#include "core/base/check.h"
#include "launch/commands.h"

namespace permafrost {

int run_eval_model(const EvalOptions& options, const Launcher&) {
  fail(ErrorKind::kNotBuilt,
       "eval: scoring a model is not part of this build, files are (--results, --annotations); got ",
       options.config.path);
}

}  // namespace permafrost
