#!/bin/sh
# Asks exeat over AuthZEN 1.0: sh authzen.sh http://127.0.0.1:7430 billing-agent mcp://crm/search
set -eu
curl --silent --show-error --fail-with-body --max-time 2 \
  --header 'Content-Type: application/json' \
  --data '{
    "subject": {"type": "identity", "id": "'"$2"'"},
    "action": {"name": "tools/call"},
    "resource": {"type": "tool", "id": "'"$3"'"},
    "context": {"purpose": "billing"}
  }' \
  "$1/access/v1/evaluation"
