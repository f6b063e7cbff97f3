#!/usr/bin/env bash
# The playground's tests: its logic under node, then the page in Chromium against a server with a small model trained on the
# spot. Needs node, npm and Chromium (Debian: nodejs npm chromium). Screenshots land in out/playground.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${TMPDIR:-/tmp}/corella-playground
mkdir -p "$work" out/playground
node --test crates/corella-server/web-tests/logic.test.mjs
[ -d "$work/node_modules/playwright-core" ] || npm install --silent --prefix "$work" playwright-core@1
cargo build --release -p corella
corella=target/release/corella
rm -rf "$work/run"
$corella train --data tiny-internet --n-layer 2 --n-head 2 --n-embd 64 --seq-len 256 --vocab-size 2048 --steps 60 \
  --batch-tokens 1024 --micro-batch 4 --lr 3e-3 --warmup-steps 5 --sample-every 20 --val-every 30 --out "$work/run"
$corella serve "$work/run" --port 0 --json > "$work/address" &
server=$!
trap 'kill $server' EXIT
until [ -s "$work/address" ]; do sleep 0.1; done
CORELLA_URL="http://$(sed 's/.*"address":"\([^"]*\)".*/\1/' "$work/address")" \
  PLAYWRIGHT="$work/node_modules/playwright-core" SHOTS="$PWD/out/playground" \
  node --test crates/corella-server/web-tests/page.test.mjs
