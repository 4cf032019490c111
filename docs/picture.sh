#!/bin/sh
# Draw docs/dashboard.png from a live session: sh docs/picture.sh PYTHON
set -eu
folder=$(mktemp -d)
export WORKBENCH_HOME="$folder/home"
trap '"$1" -m workbench stop picture --now >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
"$1" -m workbench run --headless --name picture --set learning_rate=5e-5@60 >/dev/null 2>&1 &
until "$1" -m workbench send picture series reward/mean --json 2>/dev/null | grep -q '\b100\b'; do sleep 1; done
"$1" docs/picture.py picture > "$folder/picture.svg"
"${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --user-data-dir="$folder/browser" --window-size=1970,1210 \
  --screenshot=docs/dashboard.png "file://$folder/picture.svg"
