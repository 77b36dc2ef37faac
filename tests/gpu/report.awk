# gpu.json and gpu.md from what tests/gpu/run.sh found: parts.tsv (name, state, seconds), then facts.tsv (part, key, value).
# Variables: folder, info, kernels, date, seconds, emulated. Plain awk, so that a GPU machine needs no Python.
BEGIN { FS = "\t"; json = folder "/gpu.json"; md = folder "/gpu.md" }
FILENAME == ARGV[1] { part[++parts] = $1; state[$1] = $2; took[$1] = $3; next }
{ if (!(($1, $2) in fact)) key[$1, ++keys[$1]] = $2; fact[$1, $2] = $3 }

function quoted(text) { gsub(/\\/, "\\\\", text); gsub(/"/, "\\\"", text); gsub(/[[:cntrl:]]/, " ", text); return "\"" text "\"" }
function value(text) { return text ~ /^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$/ ? text : quoted(text) }
function whole(path,    line, text) { text = ""; while ((getline line < path) > 0) text = text line "\n"; close(path); return text }
# Of a flat JSON line.
function field(line, name,    found) {
  if (!match(line, "\"" name "\": *(\"[^\"]*\"|[^,}]*)")) return ""
  found = substr(line, RSTART, RLENGTH)
  sub("^\"" name "\": *", "", found)
  gsub(/"/, "", found)
  return found
}
function folder_of(name) { gsub(/[^A-Za-z0-9_.-]/, "_", name); return folder "/parts/" name }
function or_none(text) { return text == "" ? "not measured" : text }

function write_json(    i, j, name, text, line, first) {
  printf("{\n\"date\": %s,\n\"commit\": %s,\n\"emulated\": %s,\n\"seconds\": %d,\n", quoted(date), quoted(ENVIRON["commit"]), emulated == "yes" ? "true" : "false", seconds) > json
  text = whole(info)
  printf("\"info\": %s,\n\"parts\": [", text == "" ? "null" : text) > json
  for (i = 1; i <= parts; ++i) {
    name = part[i]
    printf("%s\n {\"name\": %s, \"state\": %s, \"seconds\": %d, \"facts\": {", i > 1 ? "," : "", quoted(name), quoted(state[name]), took[name]) > json
    for (j = 1; j <= keys[name]; ++j) printf("%s%s: %s", j > 1 ? ", " : "", quoted(key[name, j]), value(fact[name, key[name, j]])) > json
    printf("}}") > json
  }
  printf("\n],\n\"kernels\": [") > json
  first = 1
  while ((getline line < kernels) > 0) { printf("%s\n %s", first ? "" : ",", line) > json; first = 0 }
  close(kernels)
  printf("\n],\n\"steps\": {") > json
  first = 1
  for (i = 1; i <= parts; ++i) {
    name = part[i]
    if (name !~ /^step:/ || (text = whole(folder_of(name) "/step.json")) == "") continue
    printf("%s\n%s: %s", first ? "" : ",", quoted(substr(name, 6)), text) > json
    first = 0
  }
  printf("}\n}\n") > json
}

function write_kernels(    line, kind, ceiling) {
  while ((getline line < kernels) > 0) {
    kind = field(line, "kind")
    if (kind == "machine") {
      ceiling = field(line, "matmul_flops")
      matmul = ceiling
      printf("\n## At most\n\n| products bf16 | products TF32 | products f32 | copy, read and written |\n|---|---|---|---|\n") > md
      printf("| %.0f TFLOP/s | %.0f TFLOP/s | %.0f TFLOP/s | %.0f GB/s |\n", ceiling / 1e12, field(line, "matmul_flops_tf32") / 1e12, field(line, "matmul_flops_f32") / 1e12, field(line, "copy_bytes_per_s") / 1e9) > md
      printf("\n## Kernels, every shape\n\nShare: of what the device reaches at most, measured in turns.\n\n| workload | part | pass | parts | shape | us | speed | share |\n|---|---|---|---|---|---|---|---|\n") > md
    } else if (kind == "product" || kind == "memory") {
      printf("| %s | %s | %s | %s | %s | %.1f | %s | %.0f %% |\n", field(line, "workload"), field(line, "part"), field(line, "pass"), field(line, "freezing"), field(line, "shape"), field(line, "seconds") * 1e6,
        kind == "product" ? sprintf("%.0f TFLOP/s", field(line, "flop_per_s") / 1e12) : sprintf("%.0f GB/s", field(line, "bytes_per_s") / 1e9), field(line, "share") * 100) > md
    } else if (kind == "sum") {
      sums[++sum_lines] = sprintf("| %s | %s | %.2f | %.0f %% |", field(line, "workload"), field(line, "of"), field(line, "seconds") * 1e3, field(line, "share") * 100)
    }
  }
  close(kernels)
  if (sum_lines) {
    printf("\n## A step's calls, one after the other\n\n| workload | calls | ms | share |\n|---|---|---|---|\n") > md
    for (line = 1; line <= sum_lines; ++line) print sums[line] > md
  }
}

function write_steps(    i, name, any) {
  for (i = 1; i <= parts; ++i) {
    name = part[i]
    if (name !~ /^step:/) continue
    if (!any++) printf("\n## Whole steps, weights drawn at random\n\nUtilisation: FLOPs as the plan counts them (2N, 4N or 6N by what freezing leaves, attention included, nothing twice) over the product ceiling.\n\n| workload | ms | samples/s | tokens/s | TFLOP/s | utilisation | outside the GPU's programs |\n|---|---|---|---|---|---|---|\n") > md
    if (fact[name, "step_ms"] == "") { printf("| %s | not measured | not measured | not measured | not measured | not measured | not measured |\n", substr(name, 6)) > md; continue }
    printf("| %s | %.2f | %.1f | %.0f | %.2f | %s | %s |\n", substr(name, 6), fact[name, "step_ms"], fact[name, "samples_per_s"], fact[name, "tokens_per_s"], fact[name, "flop_per_s"] / 1e12,
      matmul > 0 ? sprintf("%.1f %%", 100 * fact[name, "flop_per_s"] / matmul) : "not measured",
      (name, "gpu_outside_percent") in fact ? sprintf("%.1f %%", fact[name, "gpu_outside_percent"]) : "not measured") > md
  }
}

function write_md(    i, j, name, text, facts, line, labels) {
  text = whole(info)
  printf("# What a GPU showed\n\n%s, commit %s, %d s.%s\n\n", date, ENVIRON["commit"], seconds, emulated == "yes" ? " **Emulated: on a CPU, to test the script. No figure means anything.**" : "") > md
  printf("| GPU | compute capability | driver for CUDA | CUDA runtime | cuBLASLt |\n|---|---|---|---|---|\n") > md
  while ((getline line < kernels) > 0) if (field(line, "kind") == "choices") { cublas = field(line, "text"); sub(/\\n.*/, "", cublas) }
  close(kernels)
  # In "gpus", whose keys are told from those of the other parts by what they are called.
  printf("| %s | %s | %s | %s | %s |\n", or_none(json_of(text, "name")), or_none(json_of(text, "compute_capability")), or_none(json_of(text, "driver")), or_none(json_of(text, "runtime")), or_none(cublas)) > md
  printf("\n| part | state | s | found |\n|---|---|---|---|\n") > md
  for (i = 1; i <= parts; ++i) {
    name = part[i]
    facts = ""
    for (j = 1; j <= keys[name]; ++j) facts = facts (j > 1 ? ", " : "") key[name, j] " " (length(fact[name, key[name, j]]) > 40 ? substr(fact[name, key[name, j]], 1, 12) "…" : fact[name, key[name, j]])
    printf("| %s | %s | %d | %s |\n", name, state[name], took[name], facts) > md
  }
  write_kernels()
  write_steps()
}
function json_of(text, name,    found) {
  if (!match(text, "\n *\"" name "\": *\"[^\"]*\"")) return ""
  found = substr(text, RSTART, RLENGTH)
  sub("^\n *\"" name "\": *\"", "", found)
  sub(/"$/, "", found)
  return found
}

END {
  write_json()
  write_md()
}
