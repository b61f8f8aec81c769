#!/usr/bin/env bash
# Validates the committed example and mutated result documents with an independent JSON Schema implementation.
# Needs python3 with jsonschema.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -c 'import jsonschema' 2>/dev/null || { echo "python3-jsonschema is not installed"; exit 77; }
python3 tools/validate_results.py tests/golden/results/example.json results/h200/{speed-int4,speed-int4-batch8,speed-nf4,perplexity-int4,decode-int4-shallow-ring}.json
python3 tools/validate_results.py --mutations tests/golden/results/mutations.json
