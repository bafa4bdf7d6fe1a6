"""PyTorch's side of the step bench: `step.py <batch> <steps>` prints one JSON line."""

import json
import re
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        shortcut = self.downsample(x) if self.downsample else x
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


def resnet18(classes):
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    inputs = 64
    for i, outputs in enumerate([64, 128, 256, 512]):
        for block in range(2):
            layers.append(Block(inputs, outputs, 2 if i > 0 and block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


batch, steps = int(sys.argv[1]), int(sys.argv[2])
# The fastest layout on a CPU.
net = resnet18(10).to(memory_format=torch.channels_last)
assert sum(p.numel() for p in net.parameters()) == 11_173_962
decayed = [p for p in net.parameters() if p.ndim > 1]
others = [p for p in net.parameters() if p.ndim == 1]
optimizer = torch.optim.SGD(
    [{"params": decayed, "weight_decay": 1e-4}, {"params": others}], lr=0.05, momentum=0.9, nesterov=True
)
pixels = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
labels = torch.arange(batch) % 10
milliseconds = []
cpu_milliseconds = []
for step in range(steps + 1):
    start, cpu = time.perf_counter(), time.process_time()
    optimizer.zero_grad()
    loss = F.cross_entropy(net(pixels), labels)
    loss.backward()
    optimizer.step()
    loss.item()
    if step > 0:
        milliseconds.append((time.perf_counter() - start) * 1000)
        cpu_milliseconds.append((time.process_time() - cpu) * 1000)
with open("/proc/self/status") as status:
    peak = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1000
print(
    json.dumps(
        {
            "version": torch.__version__,
            "milliseconds": milliseconds,
            "cpuMilliseconds": cpu_milliseconds,
            "peakMegabytes": peak,
        }
    )
)
