#!/bin/bash
# Go benchmarks of the hot paths, of another commit and of this tree in turn, compared by benchstat.
# Usage: tools/bench-compare.sh BASE COUNT
set -euo pipefail
base=$1 count=$2
cd "$(dirname "$0")/.."
hot='^Benchmark(Decide|Select|State|NewSession|OneWriter|Accept|Pass|DecodeMerge|EmptyPolls|ReportsOf40Nodes|OpsTaken)$'
packages=(./power ./power/noderange ./power/ipmi ./journal ./agent ./gossip ./central)
tree=$(mktemp -d)
trap 'git worktree remove --force "$tree/base" 2>/dev/null || true; rm -rf "$tree"' EXIT
git worktree add --quiet --detach "$tree/base" "$base"
for i in $(seq "$count"); do
  echo "round $i of $count" >&2
  for side in base now; do
    dir=. && [ $side = now ] || dir=$tree/base
    # What the other commit lacks is not compared.
    (cd "$dir" && go test -run '^$' -bench "$hot" -benchmem -benchtime 0.2s "${packages[@]}") >> "$tree/$side.txt" ||
      echo "some benchmarks of $side failed" >&2
  done
done
go tool -modfile=tools/go.mod benchstat "$base=$tree/base.txt" "now=$tree/now.txt"
