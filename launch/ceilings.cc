#include "launch/ceilings.h"

#include <cmath>
#include <fstream>

#include "core/base/check.h"
#include "core/base/json.h"

namespace permafrost {

MeasuredCeilings read_ceilings(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file)
    fail(ErrorKind::kStorage, "plan: a file that can be read was expected; got ", path.string(), " [param=--ceilings]");
  const Json json = try_parse_json(file);
  const auto refuse = [&](const std::string& got) {
    fail(ErrorKind::kConfig, "plan: ", path.string(),
         ": a JSON object with matmul_flops, copy_bytes_per_s or both was expected; got ", got, " [param=--ceilings]");
  };
  if (!json.is_object() || json.empty()) refuse(json.is_discarded() ? "no JSON" : json_text(json));
  MeasuredCeilings ceilings;
  for (const auto& [key, value] : json.items()) {
    double* rate = key == "matmul_flops"       ? &ceilings.matmul_flops
                   : key == "copy_bytes_per_s" ? &ceilings.copy_bytes_per_s
                                               : nullptr;
    if (!rate) refuse(concat("the key '", key, "'"));
    if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>()))
      refuse(concat(key, " = ", json_text(value), ", which is no positive number"));
    *rate = value.get<double>();
  }
  return ceilings;
}

}  // namespace permafrost
