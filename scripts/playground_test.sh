#!/usr/bin/env bash
# The playground's tests: its logic under node, then the page in Chromium against servers with a small model that is trained
# on the spot. Says 'skipped' where node, npm's registry or a browser cannot be had; `--install` fetches them first (Debian,
# as root; where that fails it goes on with what there is); `--logic` stops after the logic.
#   CORELLA=FILE       use this program instead of building one
#   RUN=out/tour       serve this run folder instead
#   SHOTS=out/shots    write screenshots of every view at three widths in both themes
#   PAINT_LIMIT=200    fail if the first paint takes more milliseconds (for a quiet machine)
#   ONLY=PATTERN       only the browser tests whose names match
#   STRESS=KIND        make every page slow, to find what only waits by luck: frames (each up to 0.7 s late), fetch (each answer
#                      up to 1.5 s), database (3 s to open), processor (a quarter of its speed)
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "playground tests skipped: $*"; exit 0; }
browser() { command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome || true; }
if [ "${1:-}" = --install ]; then
  # Only what is missing: a node from elsewhere brings an npm that Debian's does not go with.
  missing=$(command -v node > /dev/null || echo nodejs; command -v npm > /dev/null || echo npm; [ -n "$(browser)" ] || echo chromium-headless-shell)
  install="apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 $missing"
  # What cannot be had is skipped below, by its name.
  [ -z "$missing" ] || { [ "$(id -u)" = 0 ] && timeout 300 apt-get update -qq && timeout 600 $install; } > /dev/null 2>&1 \
    || echo "playground: nothing could be installed"
fi

command -v node > /dev/null || skip "no node"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' || skip "node is older than 18"
logic=$(node --test crates/corella-server/web-tests/logic.test.mjs 2>&1) || { echo "$logic"; exit 1; }
echo "playground: the page's logic passed"
[ "${1:-}" != --logic ] || exit 0

browser=${CHROMIUM:-$(browser)}
[ -n "$browser" ] || skip "no Chromium"
packages=${TMPDIR:-/tmp}/corella-playwright
if ! [ -d "$packages/node_modules/playwright-core" -a -d "$packages/node_modules/axe-core" ]; then
  command -v npm > /dev/null || skip "no npm"
  timeout 300 npm install --silent --no-audit --no-fund --prefix "$packages" playwright-core@1.65.1 axe-core@4.14.1 2> /dev/null \
    || skip "playwright-core and axe-core cannot be had"
fi

corella=${CORELLA:-target/debug/corella}
[ -n "${CORELLA:-}" ] || cargo build --quiet --workspace --bin corella
work=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$work"' EXIT
small="--data tiny-internet --n-layer 2 --n-head 2 --n-embd 64 --seq-len 256 --vocab-size 2048 --batch-tokens 1024 --micro-batch 4 --lr 3e-3 --warmup-steps 5"
if [ -z "${RUN:-}" ]; then
  $corella train $small --steps 60 --sample-every 20 --val-every 30 --out "$work/run" > /dev/null
fi
# The address of a server, which its first line of output names.
address() {
  until grep -qs address "$1"; do
    kill -0 "$2" 2> /dev/null || { echo "a server has ended before it listened" >&2; exit 1; }
    sleep 0.1
  done
  head -1 "$1" | sed 's|.*"address":"\([^"]*\)".*|http://\1|'
}
# Another server with the same model, to be shown beside it.
$corella serve "${RUN:-$work/run}" --name twin --port 0 --json > "$work/twin" &
twin=$(address "$work/twin" $!)
$corella serve "${RUN:-$work/run}" --peer "twin=$twin" --port 0 --json > "$work/served" &
served=$(address "$work/served" $!)
llama=../shared/data/checkpoints/TinyStories-656K-f32
if [ -d "$llama" ]; then
  $corella serve "$llama" --port 0 --json > "$work/llama" &
  llama=$(address "$work/llama" $!)
else
  llama=
fi
# A run that goes on while the tests look at it, with what they leave of the processor.
nice -n 19 $corella train $small --steps 100000 --sample-every 20 --val-every 50 --threads 1 --out "$work/live" --serve=127.0.0.1:0 --json > "$work/lives" &
live=$(address "$work/lives" $!)
[ -z "${SHOTS:-}" ] || mkdir -p "$SHOTS"
export CORELLA_URL=$served CORELLA_LIVE_URL=$live CORELLA_LLAMA_URL=$llama CHROMIUM=$browser PLAYWRIGHT="$packages/node_modules" SHOTS=${SHOTS:-} STRESS=${STRESS:-}
for tests in page writing; do
  timeout 1500 node --test --test-name-pattern="${ONLY:-.}" "crates/corella-server/web-tests/$tests.test.mjs"
done
