#!/usr/bin/env bash
# Lint, format, types, import contract, docstrings: the same on a laptop and in CI.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
python scripts/check_docstrings.py
codespell --ignore-words-list trian,colum,discret pathoml tests scripts docs configs README.md CONTRIBUTING.md CHANGELOG.md
