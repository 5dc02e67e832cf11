#!/usr/bin/env bash
# One minute of live video over a path that changes, by rule and by forecast; shows the plot.
#   scripts/live-demo.sh [TRACE.txt] [more options of bench/live/run.sh]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${NNV_OUT:-$(mktemp -d)}
mkdir -p "$out"
trace=$out/trace.txt
if (($#)) && [ -f "$1" ]; then
  cp "$1" "$trace" && shift
else
  # A path that falls to a quarter, breaks for two seconds and comes back.
  printf '%s\n' '0 0.3' '8 0.3' '16 0.08' '20 0.25' '22 0.005' '30 0.2' >"$trace"
fi
# Half a minute each.
"$root/bench/live/run.sh" --trace "$trace" --out "$out" --seconds 30 "$@"
if [ -n "${DISPLAY:-}" ] && command -v xdg-open >/dev/null; then xdg-open "$out/live.png"; fi
