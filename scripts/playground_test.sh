#!/usr/bin/env bash
# The playground's tests: its logic under node, then the page in Chromium against servers with a small model that is trained
# on the spot. Says 'skipped' where node, npm's registry or a browser cannot be had; `--install` fetches them first (Debian);
# `--logic` stops after the logic.
#   CORELLA=FILE       use this program instead of building one
#   RUN=out/tour       serve this run folder instead
#   SHOTS=out/shots    write screenshots of every view at three widths in both themes
#   PAINT_LIMIT=200    fail if the first paint takes more milliseconds (for a quiet machine)
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "playground tests skipped: $*"; exit 0; }
if [ "${1:-}" = --install ]; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm chromium
fi

command -v node > /dev/null || skip "no node"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' || skip "node is older than 18"
node --test crates/corella-server/web-tests/logic.test.mjs > /dev/null || { node --test crates/corella-server/web-tests/logic.test.mjs; exit 1; }
if [ "${1:-}" = --logic ]; then
  echo "playground: the page's logic passed"
  exit 0
fi

browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
[ -n "$browser" ] || skip "no Chromium (the page's logic passed)"
packages=${TMPDIR:-/tmp}/corella-playwright
if [ ! -d "$packages/node_modules/playwright-core" ]; then
  command -v npm > /dev/null || skip "no npm (the page's logic passed)"
  npm install --silent --no-audit --no-fund --prefix "$packages" playwright-core@1.65.1 2> /dev/null || skip "playwright-core cannot be had (the page's logic passed)"
fi

corella=${CORELLA:-target/debug/corella}
[ -n "${CORELLA:-}" ] || cargo build --quiet --workspace --bin corella
work=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$work"' EXIT
small="--data tiny-internet --n-layer 2 --n-head 2 --n-embd 64 --seq-len 256 --vocab-size 2048 --batch-tokens 1024 --micro-batch 4 --lr 3e-3 --warmup-steps 5"
if [ -z "${RUN:-}" ]; then
  $corella train $small --steps 60 --sample-every 20 --val-every 30 --out "$work/run" > /dev/null
fi
# An address of a server whose first line of output names it.
address() {
  until [ -s "$1" ]; do sleep 0.1; done
  head -1 "$1" | sed 's|.*"address":"\([^"]*\)".*|http://\1|'
}
$corella serve "${RUN:-$work/run}" --port 0 --json > "$work/served" &
nice -n 19 $corella train $small --steps 100000 --sample-every 20 --val-every 50 --threads 1 --out "$work/live" --serve=127.0.0.1:0 --json > "$work/lives" &
[ -z "${SHOTS:-}" ] || mkdir -p "$SHOTS"
CORELLA_URL=$(address "$work/served") CORELLA_LIVE_URL=$(address "$work/lives") CHROMIUM=$browser \
  PLAYWRIGHT="$packages/node_modules/playwright-core" SHOTS=${SHOTS:-} \
  node --test crates/corella-server/web-tests/page.test.mjs
