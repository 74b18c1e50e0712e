#!/bin/bash
# Makes one project folder as a release leaves it: make.sh CHECKOUT OUT NAME, with the Python of that release on the path.
set -eu
code=$1 out=$2 name=$3 project=$2/$3
export PYTHONPATH=$code EVERGREEN_ROOT=$project OMP_NUM_THREADS=1
evergreen() { python -c 'from flows.cli import main; main()' "$@"; }
method=finetune; [ "$name" != replay ] || method='{name: replay, capacity: 6}'

mkdir -p "$project" && cd "$project" && touch pyproject.toml
cat > colours.yaml <<Y
name: colours
model: {name: "local-dir:base"}
stream: {kind: collection, sources: {inbox: inbox}, template: "a photo of a {}.", candidates: seen}
method: $method
train: {max_steps: 4, batch_size: 4, lr: 1.0e-3, device: cpu}
gate: {drop: 1, flips: 1}
Y
python - "$out" <<'P'
import sys
from pathlib import Path

import torch
from cl.clip import build
from tests import make

for session, colours in enumerate([(0, 1), (2, 3), (4, 5)], 1):
    for colour in colours:
        folder = Path(sys.argv[1], "src", f"s{session}", make.COLOURS[colour])
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(8):
            (folder / f"{i}.png").write_bytes(make.png(colour, session * 100 + i, 8))
towers = {
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
clip = build({"embed_dim": 16, **towers}, pixels, seed=0)
with torch.no_grad():
    clip.model.token_embedding.weight.zero_()  # else random numbers that hardly shrink are most of every copy of the weights
clip.save(Path("base"))
P
take() { evergreen ingest "$out/src/s$1" --session "s$1"; }
learn() { evergreen update colours.yaml "$@"; }
case $name in
three) for n in 1 2 3; do take $n; learn; done ;;
last_refused) for n in 1 2; do take $n; learn; done; take 3; learn --set gate.worst_class=1.0 ;;
refused_inside) take 1; learn; take 2; learn --set gate.worst_class=1.0; take 3; learn ;;
replay) for n in 1 2; do take $n; learn; done ;;
half)
    for n in 1 2; do take $n; learn; done
    take 3
    echo 'per_session: {s3: {max_steps: 20000, checkpoint: 1.0}}' >> colours.yaml
    learn & learner=$!
    until [ -n "$(find mlruns/steps/interim -name '*.safetensors' 2> /dev/null)" ]; do sleep 0.5; done
    sleep 3; pkill -9 -P $learner; kill -9 $learner
    ;;
esac
