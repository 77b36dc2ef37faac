#!/usr/bin/env bash
# The whole path on real photographs, on two ranks: packs 185 photographs with their captions and 36 with A-OKVQA's questions, trains a
# small OPT on 25,014 captions without images, exports it, freezes it under eP-ALM (its ViT is random), trains connectors and prompt from
# the shards, generates and scores captions and answers, and describes single photographs.
#   real_photos.sh PROGRAM [DATA] [TEXT_STEPS] [STEPS] [SAMPLES] [FOLDER]
# DATA (default: PERMAFROST_TEST_DATA) has coco_open, coco_captions and tokenizers/opt; SAMPLES are photographs and questions that are
# generated for, from the first, 0 for all; FOLDER keeps what is made.
# Runs of fewer than 20 steps warm up for half of them. Prints a table of scores. Fails when a score is missing or not finite, when the number of ranks, shards or the size of the batch changes
# a text, and when scoring the result files by themselves gives other numbers. Exits 77, which CTest calls skipped, without DATA.
set -euo pipefail
program=$1 data=${2:-${PERMAFROST_TEST_DATA:-}} text_steps=${3:-10} steps=${4:-10} samples=${5:-16} work=${6:-}
here=$(cd "$(dirname "$0")" && pwd)
configs=$here/../../configs
for file in coco_open/captions.json coco_open/vqa_aokvqa.json coco_captions/captions_val2017.json tokenizers/opt/vocab.json; do
  [ -f "$data/$file" ] || { echo "SKIPPED: needs photographs: PERMAFROST_TEST_DATA must name a folder with $file; got '$data'"; exit 77; }
done
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"

# run NAME RANKS ARGUMENT...: the program, its output in NAME.log, shown when it fails
run() {
  local name=$1 ranks=$2 start=() began=$(date +%s%3N)
  shift 2
  if [ "$ranks" -gt 1 ]; then start=("$here/../../launch/mpirun.sh" -n "$ranks"); fi
  if ! ${start[@]+"${start[@]}"} "$program" "$@" >"$work/$name.log" 2>&1; then
    echo "FAIL: $name"
    cat "$work/$name.log"
    exit 1
  fi
  printf '%-22s %d rank(s) %7.1f s\n' "$name" "$ranks" "$((($(date +%s%3N) - began) / 100))e-1"
}

problems=0
complain() { echo "FAIL: $*"; problems=1; }
# field FILE SECTION KEY: a number of scores.json; SECTION "" for the output of eval --results --json
field() { awk -v section="\"$2\"" -v key="\"$3\":" 'BEGIN { inside = section == "\"\"" } index($1, section) == 1 { inside = 1 }
  inside && $1 == key { sub(/,$/, "", $2); print $2; exit }' "$1"; }
# row TASK METRIC KEY: one line of the table, of NAME.scores and of the result file scored by itself
row() {
  local value exchanged alone
  value=$(field "$work/$1/scores.json" evaluation "$3")
  exchanged=$(field "$work/$1/scores.json" exchanged_images "$3")
  alone=$(field "$work/$1.alone.log" "" "$3")
  for number in "$value" "$exchanged" "$alone"; do
    [[ "$number" =~ ^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$ ]] || complain "$1 $2: a finite number is expected; got '$number'"
  done
  [ "$value" = "$alone" ] || complain "$1 $2: the result file by itself must have the score $value; got $alone"
  printf '%-9s %-13s %12.4f %17.4f\n' "$1" "$2" "${value:-nan}" "${exchanged:-nan}"
}
# warm_up STEPS: nothing, or the arguments that make its warm-up, 20 steps in the configurations, fit
warm_up() { if [ "$1" -lt 20 ]; then printf '%s\n' --set "schedule.warmup_steps=$(($1 / 2))"; fi; }
text_of() { sed -n "s/^{\"$2\": $3, \"$4\": \"\(.*\)\"},\{0,1\}\$/\1/p" "$1"; }

mapfile -t text_warm_up < <(warm_up "$text_steps")
mapfile -t warm_up < <(warm_up "$steps")
tokenizer=(--set "data.tokenizer.root=$data/tokenizers/opt")
looked_at=(--set "evaluation.samples=$samples" --set evaluation.exchanged_images=true)
photos=(--set "data.root=$data/coco_open" "${tokenizer[@]}" "${looked_at[@]}")
run text 2 train "$configs/photos_text.textproto" --set "data.root=$data/coco_captions" "${tokenizer[@]}" \
  --set "train.max_steps=$text_steps" ${text_warm_up[@]+"${text_warm_up[@]}"} --run-dir "$work/text"
run export 1 weights export --from "$work/text/checkpoints/step-$(printf %08d "$text_steps")" --to "$work/opt" --as opt \
  --tokenizer "$data/tokenizers/opt"
for task in captions vqa; do
  config=$configs/photos_$task.textproto
  backbones=(--set "weights.text=$work/opt")
  shards=(--set data.format=SHARDS --set "data.shards=$work/$task.shards" "${looked_at[@]}")
  adapter=(--adapter "$work/$task.run/checkpoints/step-$(printf %08d "$steps")")
  annotations=$data/coco_open/captions.json
  if [ $task = vqa ]; then annotations=$data/coco_open/vqa_aokvqa.json; fi
  run "$task.pack" 2 data pack "$config" "${photos[@]}" --shard-mb 2 --out "$work/$task.shards"
  run "$task.train" 2 train "$config" "${tokenizer[@]}" "${shards[@]}" "${backbones[@]}" --set "train.max_steps=$steps" \
    ${warm_up[@]+"${warm_up[@]}"} \
    --run-dir "$work/$task.run"
  run "$task.eval" 2 eval "$config" "${photos[@]}" "${backbones[@]}" "${adapter[@]}" --out "$work/$task"
  run "$task.eval.one" 1 eval "$config" "${tokenizer[@]}" "${shards[@]}" "${backbones[@]}" "${adapter[@]}" --out "$work/$task.one"
  for file in results.json results_exchanged.json; do
    cmp "$work/$task/$file" "$work/$task.one/$file" || complain "$task: 1 rank from shards and 2 ranks from files must write the same $file"
  done
  run "$task.alone" 1 eval --results "$work/$task/results.json" --annotations "$annotations" --partial --json
done

# One photograph and one question by themselves, in a batch of their own: what evaluation said of them.
run captions.generate 1 generate "$configs/photos_captions.textproto" "${photos[@]}" "${backbones[@]}" \
  --adapter "$work/captions.run/checkpoints/step-$(printf %08d "$steps")" --image "$data/coco_open/images/000000000285.jpg"
caption=$(grep -a '000000000285.jpg' "$work/captions.generate.log" | cut -f2)
run vqa.generate 1 generate "$configs/photos_vqa.textproto" "${photos[@]}" "${backbones[@]}" "${adapter[@]}" \
  --image "$data/coco_open/images/000000117425.jpg" --question "What interests the child most here?"
answer=$(grep -a '000000117425.jpg' "$work/vqa.generate.log" | cut -f2)
expected=$(text_of "$work/captions/results.json" image_id 285 caption)
[[ -n "$caption" && "$caption" = "$expected" ]] || complain "photograph 285: evaluation said '$expected'; generate says '$caption'"
expected=$(text_of "$work/vqa/results.json" question_id '"2U3SiXdyEgJBHNThL4YbPz"' answer)
[[ -n "${answer// /}" && "$answer" = "$expected" ]] || complain "question 2U3SiXdyEgJBHNThL4YbPz: evaluation said '$expected'; generate says '$answer'"

printf '\n%-9s %-13s %12s %17s\n' task metric score 'exchanged images'
row captions BLEU-1 bleu_1
row captions BLEU-4 bleu_4
row captions ROUGE-L rouge_l
row captions CIDEr cider
row vqa 'VQA accuracy' vqa_accuracy
row vqa 'direct answer' direct_answer
echo "photograph 285: $caption"
echo "question about photograph 117425, 'What interests the child most here?': $answer"
exit $problems
