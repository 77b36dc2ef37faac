#!/usr/bin/env bash
# From a fresh checkout to a trained model: sets up, builds, and trains a very small eP-ALM with everything trainable, on
# generated images or on a folder of yours in COCO's layout (captions.json and images/).
#   launch/quickstart.sh [PHOTOS] [--no-install]
# Run again, it does only what is left to do; an interrupted training goes on where its last checkpoint is.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

photos=""
setup=()
for argument in "$@"; do
  case "$argument" in
    --no-install) setup=(--no-install) ;;
    -h|--help) sed -n '2,5s/^# \{0,1\}//p' launch/quickstart.sh; exit 0 ;;
    -*) echo "quickstart.sh: expected [PHOTOS] [--no-install]; got '$argument'" >&2; exit 2 ;;
    *)
      [ -z "$photos" ] || { echo "quickstart.sh: expected one folder; got '$photos' and '$argument'" >&2; exit 2; }
      photos=$argument ;;
  esac
done

run=runs/quickstart
if [ -n "$photos" ]; then
  [[ "$photos" == /* ]] || photos="$here/$photos"
  for part in captions.json images; do
    [ -e "$photos/$part" ] || { echo "quickstart.sh: expected a folder with captions.json and images/; got '$photos', which has no $part" >&2; exit 3; }
  done
  photos=$(cd "$photos" && pwd)
  run="runs/quickstart-$(basename "$photos")-$(printf '%s' "$photos" | cksum | cut -d ' ' -f 1)"
fi

launch/setup.sh ${setup[@]+"${setup[@]}"}
launch/build.sh cpu permafrost
program=build/cpu/bin/permafrost

data=runs/quickstart-data
if [ ! -e "$data/tokenizer/merges.txt" ]; then  # the last file written
  echo "Generating images, captions and a byte tokenizer in $data"
  "$program" data sample-photos --out "$data"
fi
[ -n "$photos" ] || photos="$PWD/$data"

if [ -e "$run/finished" ]; then
  echo "Trained before; remove $run to train again"
else
  resume=()
  if [ -d "$run" ]; then resume=(--resume); fi
  echo "Training on $photos"
  "$program" train configs/quickstart.textproto --set "data.root=$photos" \
    --set "data.tokenizer.root=$PWD/$data/tokenizer" --run-dir "$run" ${resume[@]+"${resume[@]}"}
  touch "$run/finished"
fi

number() { sed -n "s/^ *\"$1\": *\([^,]*\),\{0,1\}$/\1/p" "$run/summary.json"; }
report() { LC_ALL=C printf '%-50s %.3f nats per byte of text\n' "$1" "$(number "$2")"; }
echo
report "Loss of the first step" first_loss
report "Loss of the last step" last_loss
report "Loss at the end, each text with its own image" final_nats_per_token
report "The same with the images exchanged" final_nats_per_token_exchanged_images
echo "Run directory: $run (metrics.jsonl, TensorBoard events, plan, checkpoints)"
