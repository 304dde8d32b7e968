#!/usr/bin/env bash
# The table at full width, in slices that end within 8 minutes and go on where the last one stopped.
# usage: benchmarks/gpu.sh FOLDER_OF_IMAGES RUNS [EPOCHS]      (call it until it says "done")
set -euo pipefail
images=$1 runs=$2 epochs=${3:-30}
common=(--data.name "folder:$images" --model.width 64 --epochs "$epochs" --compile --checkpoint-minutes 1 --log-every 50)
deadline=$((SECONDS + 440))
for recipe in standard deepseek pgd; do
  left=$((deadline - SECONDS))
  [ "$left" -gt 30 ] || { echo "slice over: call again"; exit 75; }
  [ -e "$runs/$recipe/finished" ] && continue
  timeout --signal=INT "$left" python3 -m robust_adapt train "$recipe" "${common[@]}" --out "$runs/$recipe" --resume ||
    { echo "slice over: call again"; exit 75; }
  python3 -P "$(dirname "$0")/publish.py" "$runs/$recipe" "$runs/published/$recipe" --weights  # the table is made on these
  touch "$runs/$recipe/finished"
done
left=$((deadline - SECONDS))
[ "$left" -gt 120 ] || { echo "slice over: call again for the evaluation"; exit 75; }
python3 -m robust_adapt table --standard "$runs/standard" --robust "$runs/deepseek" "$runs/pgd" --out "$runs/table"
# files of at most 15 MiB for the way home
for recipe in deepseek pgd; do split -b 15M -d "$runs/published/$recipe/best.pt" "$runs/published/$recipe/best.pt."; done
echo done
