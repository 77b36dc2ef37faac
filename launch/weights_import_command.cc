#include "launch/commands.h"
#include "launch/weights_convert.h"

namespace permafrost {

int run_weights_import(const WeightsImportOptions& options) {
  const WeightKind kind = weight_kind(options.as);
  const std::optional<DType> dtype = asked_dtype(options.dtype);
  if (!options.to.ends_with(".safetensors"))
    fail(ErrorKind::kConfig, "weights import: --to must end in .safetensors; got ", options.to);
  const WeightSource source = WeightSource::open(options.from);
  write_safetensors(source, map_and_report(source, kind), dtype, options.to);
  return 0;
}

}  // namespace permafrost
