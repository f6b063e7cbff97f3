"""Starts `corella serve` for a script and ends it: `with serving(MODEL) as url: …`. Standard library only."""
import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def program():
    """The program: $CORELLA, or what `cargo build --release` or `cargo build` left; the newest counts."""
    named = os.environ.get("CORELLA")
    found = [Path(named)] if named else [p for p in (ROOT / "target" / kind / "corella" for kind in ("release", "debug")) if p.exists()]
    if not found:
        raise SystemExit("no program: cargo build --release -p corella, or set CORELLA")
    return str(max(found, key=lambda p: p.stat().st_mtime))


@contextlib.contextmanager
def serving(model, *flags, by=None):
    """Serves `model` on a free port of this machine, `by` another program than `program()`; gives the address without a slash at its end."""
    command = [by or program(), "serve", str(model), "--port", "0", "--json", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        if not line:
            raise SystemExit(f"it did not start: {' '.join(command)}")
        url = "http://" + json.loads(line)["address"]
        wait_until_ready(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(60)


def wait_until_ready(url, server, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url + "/health").close()
            return
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())["error"]["message"]
            if error.code != 503 or "could not be loaded" in answer:
                raise SystemExit(answer)
            time.sleep(0.05)
    raise SystemExit("the model did not load")
