#!/usr/bin/env bash
# Pillow's ImageOps.pad, which shows an image whole between bars, rounds the shorter side of the scaled image to 0 pixels
# where the image is thin enough, and then raises "height and width must be > 0" for an image that Pillow opens, resizes
# and fits (ImageOps.fit) without complaint. One that is resized to 1 pixel first is padded.
# Seen with Pillow 12.3.0.
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet pillow==12.3.0
"$tmp/venv/bin/python" - <<'P' | tee "$tmp/said"
import PIL
from PIL import Image, ImageOps

print("Pillow", PIL.__version__)
thin = Image.new("RGB", (3000, 1), "red")
try:
    print("pad", ImageOps.pad(thin, (224, 224)).size)
except ValueError as error:
    print("pad raises:", error)
print("fit", ImageOps.fit(thin, (224, 224)).size, "contain after resize", ImageOps.pad(thin.resize((224, 1)), (224, 224)).size)
P
grep -q "pad raises: height and width must be > 0" "$tmp/said"
grep -q "fit (224, 224) contain after resize (224, 224)" "$tmp/said"
