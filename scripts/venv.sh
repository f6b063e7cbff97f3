#!/usr/bin/env bash
# Makes .venv with what the fixtures and comparisons need. The plain test run needs none of it.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv .venv
.venv/bin/pip install --quiet torch transformers safetensors tiktoken tokenizers sentencepiece protobuf numpy tensorboard tbparse \
  'lm-eval[hf,api]' gguf openai psutil llama-cpp-python
