#!/usr/bin/env bash
# quickstart.sh with a program that only writes down how it is called: what a first run does, what a second one leaves alone, what is made
# again after a backbone was removed, and which arguments are refused.
#   quickstart_script_test.sh QUICKSTART
set -euo pipefail
quickstart=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/launch" "$folder/build/cpu/bin" "$folder/photos/images"
echo '{}' >"$folder/photos/captions.json"
cp "$quickstart" "$folder/launch/quickstart.sh"
for name in setup build; do printf '#!/usr/bin/env bash\n' >"$folder/launch/$name.sh"; done
printf '#!/usr/bin/env bash\nshift 2\nexec "$@"\n' >"$folder/launch/mpirun.sh"  # -n 2
cat >"$folder/build/cpu/bin/permafrost" <<'FAKE'
#!/usr/bin/env bash
calls=$(dirname "$0")/../../../calls
where=""
for ((i = 1; i < $#; ++i)); do
  case "${!i}" in --run-dir | --to | --out) j=$((i + 1)); where=${!j} ;; esac
done
what="$1 ${where##*/runs/}"
what="${what/runs\//}"
echo "$what" >>"$calls"
[ "$what" != "${FAKE_FAILS_AT:-}" ] || exit 5
mkdir -p "$where"
case "$1" in
  train)
    mkdir -p "$where/checkpoints/step-00000001"
    printf '{\n  "first_loss": 3,\n  "last_loss": 2,\n  "final_nats_per_token": 1,\n  "final_nats_per_token_exchanged_images": 1.5\n}\n' >"$where/summary.json"
    echo "plan: fake" ;;
  eval) echo "exact match: 95.1 % (held_out: 94.0 %, exchanged images: 0.0 %)" ;;
esac
FAKE
chmod +x "$folder"/launch/*.sh "$folder/build/cpu/bin/permafrost"

die() { echo "quickstart_script: $*" >&2; exit 1; }
# starts ARGUMENT...: the script; its exit code in code, what it says in output, what it calls in calls (joined by ", ")
starts() {
  code=0
  : >"$folder/calls"
  output=$("$folder/launch/quickstart.sh" "$@" 2>&1) || code=$?
  calls=$(paste -sd, "$folder/calls" | sed 's/,/, /g')
}
# does CALLS: the script succeeded and called these
does() { [ "$code" = 0 ] && [ "$calls" = "$1" ] || die "expected '$1'; got exit code $code and '$calls', saying: $output"; }
refuses() {
  [ "$code" = 2 ] && [ -z "$calls" ] || die "expected '$1' to be refused; got exit code $code and '$calls'"
  [[ "$output" == "quickstart.sh: expected "*"; got $1" ]] || die "expected '$1' to be named; got: $output"
}

scenes="data demo/data" vision="train demo/vision" text="train demo/text" epalm="train demo/epalm" scored="eval demo/results"
exported="weights demo/backbones/vit, weights demo/backbones/opt"
starts --no-install
does "$scenes, $vision, $text, $exported, $epalm, $scored"
starts
does "$scenes, $scored"
[[ "$output" == *"Trained before; remove runs/demo/epalm to train again"* ]] || die "expected 'Trained before'; got: $output"
[[ "$output" == *$'\n'"exact match: 95.1 % "* ]] || die "expected the score; got: $output"

# A new backbone is exported, and what was trained on the old one is trained again, also when an interruption comes between.
rm -r "$folder/runs/demo/vision"
starts
does "$scenes, $vision, $exported, $epalm, $scored"
rm -r "$folder/runs/demo/text"
FAKE_FAILS_AT=$text starts
[ "$code" = 5 ] || die "expected the failure of the program to end the script; got exit code $code"
FAKE_FAILS_AT="weights demo/backbones/opt" starts
[ "$calls" = "$scenes, $text, $exported" ] || die "expected to go on where the failure was; got '$calls'"
starts
does "$scenes, $exported, $epalm, $scored"
rm -r "$folder/runs/demo/epalm"
starts
does "$scenes, $epalm, $scored"

starts --seed 7
does "$(sed 's#demo/#demo-seed7/#g' <<<"$scenes, $vision, $text, $exported, $epalm, $scored")"
starts --seed 0
[ "$code" = 0 ] && [ -d "$folder/runs/demo-seed0" ] || die "expected seed 0 to be taken; got: $output"

photos_run=quickstart-photos-$(printf '%s' "$folder/photos" | cksum | cut -d ' ' -f 1)
starts "$folder/photos"
does "data quickstart-tokenizer, train $photos_run"
[[ "$output" == *"Run directory: runs/$photos_run "* ]] || die "expected the run directory; got: $output"

starts "$folder/photos" --seed 3
refuses "--seed with a folder"
starts --seed 42 "$folder/photos"
refuses "--seed with a folder"
for seed in 042 00 -1 x "" 1234567890123456789; do
  starts --seed "$seed"
  refuses "--seed '$seed'"
done
starts --verbose
refuses "'--verbose'"
starts a b
refuses "two folders, 'a' and 'b'"
echo "quickstart_script: passed"
