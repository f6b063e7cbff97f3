#!/usr/bin/env bash
# Makes .venv with what the fixtures and comparisons need. The plain test run needs none of it.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv .venv
# torch's default wheel pulls in gigabytes of GPU libraries that the CPU path never loads.
.venv/bin/pip install --quiet --no-deps torch
.venv/bin/pip install --quiet filelock typing-extensions sympy networkx jinja2 fsspec numpy setuptools safetensors tiktoken transformers
