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
  touch "$runs/$recipe/finished"
done
left=$((deadline - SECONDS))
[ "$left" -gt 120 ] || { echo "slice over: call again for the evaluation"; exit 75; }
python3 -m robust_adapt table --standard "$runs/standard" --robust "$runs/deepseek" "$runs/pgd" --out "$runs/table"
# files of at most 15 MiB for the way home: half-precision weights, split
python3 - "$runs" <<'EOF'
import sys
from pathlib import Path

import torch

for run in ("deepseek", "pgd"):
    folder = Path(sys.argv[1]) / run
    weights = torch.load(folder / "best.pt", weights_only=True)
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, folder / "half.pt")
EOF
for run in deepseek pgd; do split -b 15M -d "$runs/$run/half.pt" "$runs/$run/half.pt."; done
echo done
