#!/usr/bin/env bash
# timm builds EfficientNet-Lite and MobileNetV2 with ReLU6(inplace=True), as if that saved memory. Where they are
# trained it costs some: the gradient of torch's hardtanh_ is taken from its input, which it would overwrite, so each
# call clones the whole map first. Out of place nothing is cloned, and the result has the same bits. relu_ and
# leaky_relu_ take theirs from the result and clone nothing in place. In a training step of EfficientNet-Lite0's first
# stages on a CPU that was some 4 % of the time.
# Seen with torch 2.14.1 and timm 1.0.31 (tools/autograd/derivatives.yaml of torch: hardtanh_, relu_).
set -euo pipefail
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install --quiet torch==2.14.1 timm==1.0.31 numpy==2.3.5
"$tmp/venv/bin/python" -W ignore - 2>/dev/null <<'P'
import sys

import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

print("torch", torch.__version__, "timm", timm.__version__)
trunk = timm.create_model("tf_efficientnet_lite0", pretrained=False)
built = sum(isinstance(part, nn.ReLU6) and part.inplace for part in trunk.modules())
print(f"tf_efficientnet_lite0: {built} ReLU6(inplace=True)")
maps, clones, results = torch.randn(4, 8, 16, 16), {}, {}
for trained in (False, True):
    for layer in (nn.ReLU6(inplace=True), nn.ReLU6(), nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True)):
        made = maps.clone().requires_grad_(trained) * 1
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            result = layer(made)
        key = trained, str(layer)
        clones[key] = sum(event.count for event in seen.key_averages() if event.key == "aten::clone")
        results[key] = result.detach()
        print("with gradients" if trained else "without", layer, "clones", clones[key])
same = torch.equal(results[True, "ReLU6(inplace=True)"], results[True, "ReLU6()"])
copying = [key for key, count in clones.items() if count]
sys.exit(not (built > 0 and same and copying == [(True, "ReLU6(inplace=True)")]))
P
