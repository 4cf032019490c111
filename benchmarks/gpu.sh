#!/bin/sh
# Sampling and updating on a GPU, with the share of its roofline that they reach, and TRL's GRPO on the same work.
#
#   benchmarks/gpu.sh                      SmolLM2-135M and a random Llama of 1.1 billion parameters, on CUDA
#   DEVICE=cpu benchmarks/gpu.sh --tiny    the same code on a CPU in seconds: shows that it runs, measures nothing
#
# What it needs beside torch and transformers:
#   PYTHON   the interpreter (python3)
#   WHEELS   a folder of wheels to put on the path without installing: msgspec and platformdirs, which `sessions` imports,
#            accelerate, safetensors, and trl with datasets if TRL is to run too. Fill it where there is a network, for
#            the Python of the GPU machine:
#              pip download --no-deps --only-binary :all: --python-version 3.12 -d wheels \
#                  msgspec platformdirs accelerate safetensors trl datasets
#   SMOLLM2  the model's folder (what `workbench fetch smollm2` makes); left out where there is none
#   OUT      where gpu.json and gpu.md go (benchmarks/results)
#
# A machine that takes at most so many megabytes a time: carry the wheels with the first call and keep them there.
# SmolLM2 is 538 MB in fp32 and 269 in bf16, so cut a bf16 copy into pieces, one a call, and put them together there:
#   split -b 60m model.safetensors piece.       ...       cat piece.* > model.safetensors
# The random Llama needs no file, so two calls do without SmolLM2: one for the wheels, one to run.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
SMOLLM2=${SMOLLM2:-${WORKBENCH_HOME:-$HOME/.local/share/rl-workbench}/models/smollm2}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

if [ -n "${WHEELS:-}" ]; then
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  for wheel in "$WHEELS"/*.whl; do
    "$PYTHON" -m zipfile -e "$wheel" "$unpacked"
  done
  PYTHONPATH="$PYTHONPATH:$unpacked"
fi

case " $* " in
  *" --tiny "*)
    models=tiny
    OUT=${OUT:-${TMPDIR:-/tmp}/workbench-gpu-tiny} # its figures are none
    ;;
  *)
    models=billion
    if [ -f "$SMOLLM2/config.json" ]; then models="$SMOLLM2 billion"; else echo "no SmolLM2 in $SMOLLM2" >&2; fi
    ;;
esac
# shellcheck disable=SC2086 # several models are several words
"$PYTHON" -m benchmarks.gpu.step $models --device "$DEVICE" --out "${OUT:-benchmarks/results}" "$@"
