#!/bin/sh
# Pins every extra, hash by hash, to one set of versions: dev.txt first, the others inside it. Called by `make lock`.
set -eu
uv=$1
compile() {
    "$uv" pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 "$@"
}
compile --extra dev pyproject.toml -o requirements/dev.txt
for extra in operator workloads-cpu workloads-gpu report; do
    compile --extra "$extra" -c requirements/dev.txt pyproject.toml -o "requirements/$extra.txt"
done
printf 'hatchling\nsetuptools\nwheel\neditables\n' | compile - -o requirements/build.txt
# what benchmarks compare with, in an environment of their own
printf 'datatrove[io,processing]\nspacy\ndatasketch\nrensa==0.5.0\nxxhash<4\n' | compile - -o tests/bench/peers/requirements.txt
printf 'uv\n' | compile - -o requirements/uv.txt
