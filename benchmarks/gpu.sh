#!/usr/bin/env bash
# Everything that waits for a GPU, in steps that go on where the last call stopped.
#
#   benchmarks/gpu.sh DATA OUT [EPOCHS]   call it until it prints "all done"; a call works for at most 8 minutes
#   SHORT=1 benchmarks/gpu.sh DATA OUT      for a large card that is there for a quarter of an hour
#   SMOKE=1 benchmarks/gpu.sh digits OUT    the same steps in their smallest form, in one call, on a CPU too
#
# DATA: a data set's name, as folder:PATH. OUT/NAME.done marks a finished step; one that fails is said, the others are
# tried, and the next call tries it again. OUT/home is what to bring home, after each call also in pieces of 15 MiB,
# OUT/home.tgz.*: records, and the weights of the robust models in half precision. SLICE: the seconds of a call, 450.
# Without a package index bring the wheels of torchattacks, robustbench, pyautoattack, lightning-fabric,
# lightning-utilities, tyro, docstring-parser, typeguard, gdown, beautifulsoup4, soupsieve, geotorch, timm 1.0.9 and
# adversarial-robustness-toolbox, and say PYTHONPATH=their folder.
set -uo pipefail
data=$1 out=$2 smoke=${SMOKE:-} short=${SHORT:-} failed=""
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out/home"
deadline=$((SECONDS + ${SLICE:-450}))
[ -z "$smoke" ] || deadline=$((SECONDS + 3000))

# step NAME COMMAND...: once; the deadline interrupts what can go on.
step() {
  local name=$1 left=$((deadline - SECONDS)) code
  shift
  [ ! -e "$out/$name.done" ] || return 0
  [ "$left" -gt 20 ] || { echo "slice over, next: $name; call again"; exit 75; }
  echo "== $name"
  timeout --signal=INT --kill-after=20 "$left" "$@"
  code=$?
  if [ "$code" -eq 0 ]; then
    touch "$out/$name.done"
  elif [ $((deadline - SECONDS)) -le 20 ]; then
    echo "slice over in $name; call again"
    exit 75
  else
    echo "$name failed with $code"
    failed="$failed $name"
  fi
}

bring_home() {
  local name
  for name in fast exact; do
    [ ! -e "$out/autoattack-$name/benchmark.json" ] || cp "$out/autoattack-$name/benchmark.json" "$out/home/autoattack-$name.json"
  done
  rm -f "$out"/home.tgz.*
  tar -C "$out" -czf - home | split -b 15M -d - "$out/home.tgz."
}
trap bring_home EXIT

width=64 small=16 brief=4 epochs=${3:-30} widths="16 64" batch=() rounds=10 many=10000 few=1000 seeds="0 1 2"
judged=() tests=() version=() unseen=()
if [ -n "$short" ]; then
  epochs=${3:-8} widths=64 many=500 few=500 seeds=0
  judged=(--evaluation.n 2000 --evaluation.cw-n 100 --evaluation.deepfool-n 50)
elif [ -n "$smoke" ]; then
  width=4 small=4 brief=0.1 epochs=0.1 widths=4 batch=(--batch-size 16) rounds=2 many=8 few=8 seeds=0
  python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || tests=(--collect-only)
  judged=(--evaluation.n 8 --evaluation.cw-n 4 --evaluation.deepfool-n 4) version=(--version custom --attacks apgd-ce)
  unseen=(--judged 100 108)
fi
python3 -c "import art" 2>/dev/null && peers=() || peers=(--without-art)
common=(--data.name "$data" --checkpoint-minutes 1 --log-every 50 "${batch[@]}")
# shellcheck disable=SC2046,SC2086
{
step doctor python3 -m robust_adapt doctor
step tests python3 -m pytest -q -m gpu $(grep -l "mark[.]gpu" "$here"/tests/*.py) -p no:cacheprovider "${tests[@]}"
step speed python3 -m benchmarks.speed --data "$data" --widths $widths "${batch[@]}" --rounds $rounds "${peers[@]}" \
  --out "$out/home/speed.json"
step precision python3 -m benchmarks.precision --data "$data" --width $small --epochs $brief --seeds $seeds "${batch[@]}" \
  "${unseen[@]}" --out "$out/precision" --home "$out/home/precision"
for recipe in one-step deepseek standard; do
  step "$recipe" python3 -m robust_adapt train $recipe "${common[@]}" "${judged[@]}" --model.width $width \
    --epochs "$epochs" --out "$out/$recipe" --resume
  [ $recipe = standard ] && weights=() || weights=(--weights)
  step "$recipe-published" python3 -m benchmarks.publish "$out/$recipe" "$out/home/$recipe" "${weights[@]}"
done
step table python3 -m robust_adapt table --standard "$out/standard" --robust "$out/deepseek" "$out/one-step" \
  --out "$out/home/table"
step autoattack-exact python3 -m robust_adapt benchmark "$out/deepseek" --data.name "$data" --n $few \
  "${version[@]}" --out "$out/autoattack-exact"
step autoattack-fast python3 -m robust_adapt benchmark "$out/deepseek" --data.name "$data" --n $many --fast \
  "${version[@]}" --out "$out/autoattack-fast"
}
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
echo "all done"
