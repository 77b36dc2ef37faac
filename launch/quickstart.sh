#!/usr/bin/env bash
# From a fresh checkout to a model that says what it sees. Sets up, builds, and runs the demo: generated scenes; a small
# ViT and a small OPT trained from scratch, each without the other; both frozen, eP-ALM's connectors and prompt trained
# between them on two ranks; captions of scenes that none of them has seen, scored.
#   launch/quickstart.sh [--seed N] [--no-install]
#   launch/quickstart.sh PHOTOS [--no-install]    instead: a very small eP-ALM, all of it, on a folder in COCO's layout
# Run again, it does only what is left to do, and scores again; an interrupted training goes on where its last checkpoint is.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

photos="" seed=""
setup=()
usage() { echo "quickstart.sh: expected [PHOTOS | --seed N] [--no-install]; got $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --no-install) setup=(--no-install) ;;
    --seed)
      [[ "${2:-}" =~ ^(0|[1-9][0-9]{0,17})$ ]] || usage "--seed '${2:-}'"
      seed=$2
      shift ;;
    -h|--help) sed -n '2,7s/^# \{0,1\}//p' launch/quickstart.sh; exit 0 ;;
    -*) usage "'$1'" ;;
    *)
      [ -z "$photos" ] || usage "two folders, '$photos' and '$1'"
      photos=$1 ;;
  esac
  shift
done
[ -z "$photos" ] || [ -z "$seed" ] || usage "--seed with a folder"
seed=${seed:-42}
if [ -n "$photos" ]; then
  [[ "$photos" == /* ]] || photos="$here/$photos"
  for part in captions.json images; do
    [ -e "$photos/$part" ] || { echo "quickstart.sh: expected a folder with captions.json and images/; got '$photos', which has no $part" >&2; exit 3; }
  done
  photos=$(cd "$photos" && pwd)
fi

launch/setup.sh ${setup[@]+"${setup[@]}"}
launch/build.sh cpu permafrost permafrost_mpi
program=$PWD/build/cpu/bin/permafrost

# train RUN COMMAND ...: unless it is done; goes on where an interrupted one was. RUN/log has all it says.
train() {
  local run=$1
  shift
  if [ -e "$run/finished" ]; then
    echo "Trained before; remove $run to train again"
    return
  fi
  local resume=()
  if [ -d "$run" ]; then resume=(--resume); fi
  mkdir -p "$run"
  "$@" --run-dir "$run" ${resume[@]+"${resume[@]}"} | tee -a "$run/log" | { grep --line-buffered -E '^(step|validation|resume|early)' || true; }
  touch "$run/finished"
}

# One number of a summary.json; the keys of its first level stand on lines of their own.
number() { sed -n "s/^ *\"$2\": *\([^,]*\),\{0,1\}$/\1/p" "$1/summary.json"; }

photographs() {
  local run=runs/quickstart-$(basename "$photos")-$(printf '%s' "$photos" | cksum | cut -d ' ' -f 1)
  local tokenizer=runs/quickstart-tokenizer
  [ -e "$tokenizer/merges.txt" ] || "$program" data byte-tokenizer --out "$tokenizer"
  echo "Training on $photos"
  train "$run" "$program" train configs/quickstart.textproto --set "data.root=$photos" --set "data.tokenizer.root=$PWD/$tokenizer"
  report() { LC_ALL=C printf '%-50s %.3f nats per byte of text\n' "$1" "$(number "$run" "$2")"; }
  echo
  report "Loss of the first step" first_loss
  report "Loss of the last step" last_loss
  report "Loss at the end, each text with its own image" final_nats_per_token
  report "The same with the images exchanged" final_nats_per_token_exchanged_images
  echo "Run directory: $run (metrics.jsonl, TensorBoard events, plan, checkpoints)"
}

demo() {
  local demo=runs/demo
  [ "$seed" = 42 ] || demo=runs/demo-seed$seed
  local data=$PWD/$demo/data vit=$demo/backbones/vit opt=$demo/backbones/opt
  local ranks=(launch/mpirun.sh -n 2 "$program")
  local common=(--set "data.root=$data" --set "train.seed=$seed" --set "data.seed=$seed" --set parallel.threads=1)

  echo "== Scenes: images, captions, questions, and a tokenizer for them"
  "$program" data demo --out "$data" --seed "$seed" --questions
  if [ ! -e "$demo/vision/finished" ] || [ ! -e "$demo/text/finished" ]; then
    rm -rf "$demo/backbones" "$demo/epalm"  # there when a backbone was removed: made from that one
  fi
  echo "== 1 of 3: a ViT learns shapes, colours and places"
  train "$demo/vision" "${ranks[@]}" train configs/demo_vision.textproto "${common[@]}"
  echo "== 2 of 3: an OPT learns to write, from texts alone"
  train "$demo/text" "${ranks[@]}" train configs/demo_text.textproto "${common[@]}"
  if [ ! -e "$demo/backbones/finished" ]; then
    "$program" weights export --as timm_vit --from "$(ls -d "$demo"/vision/checkpoints/step-* | tail -n 1)" --to "$vit" >"$demo/vision/export.log"
    "$program" weights export --as opt --from "$(ls -d "$demo"/text/checkpoints/step-* | tail -n 1)" --to "$opt" --tokenizer "$data/tokenizer" >"$demo/text/export.log"
    touch "$demo/backbones/finished"
  fi
  local backbones=(--set "weights.vision=$vit" --set "weights.text=$opt")
  echo "== 3 of 3: both are frozen; connectors and prompt learn to make them understand each other, on two ranks"
  train "$demo/epalm" "${ranks[@]}" train configs/epalm_demo.textproto "${common[@]}" "${backbones[@]}"
  grep -h '^plan:' "$demo/epalm/log" | tail -n 1
  echo "== Captions of 1,000 scenes that no part has seen"
  "${ranks[@]}" eval configs/epalm_demo.textproto "${common[@]}" "${backbones[@]}" \
    --adapter "$(ls -d "$demo"/epalm/checkpoints/step-* | tail -n 1)" --out "$demo/results" --sheet "$demo/sheet.png" --samples 8 2>"$demo/eval.log" | tee "$demo/scores.txt" |
    { grep -vE '^(METEOR|SPICE|BLEU|ROUGE|CIDEr)' || true; }
  echo
  echo "Look at $demo/sheet.png: pictures with what was said about them"
  echo "Where everything is: $demo/data (HDF5 shards, tokenizer), $demo/backbones (ViT with timm's names, OPT as transformers reads it),"
  echo "$demo/{vision,text,epalm} (metrics.jsonl, TensorBoard events, plans, checkpoints), $demo/results (captions, scores), $demo/scores.txt"
}

if [ -n "$photos" ]; then photographs; else demo; fi
