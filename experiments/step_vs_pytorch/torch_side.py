"""The network in PyTorch, as one would write it, and its training step."""

import torch
from torch import nn
from torch.nn import functional

from experiments.step_vs_pytorch.network import (
    CHANNELS,
    FEATURES,
    GROUPS,
    HIDDEN,
    JOINTS,
    MODEL,
    SQUARE,
    STEPS,
    TIME,
    WIDE,
    stages,
)


class Norm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.conv = nn.Conv2d(GROUPS, GROUPS, (1, kernel))
        self.conv_norm = Norm(WIDE)
        self.fc = nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))
        self.fc_norm = nn.LayerNorm(WIDE)

    def forward(self, x):
        y = self.conv(x.reshape(len(x), GROUPS, WIDE // GROUPS, -1)).relu()
        y = y.reshape(len(x), WIDE, -1)
        x = self.conv_norm(y + x[..., -y.shape[-1] :]).transpose(1, 2)
        return self.fc_norm(self.fc(x) + x).transpose(1, 2)


class Network(nn.Module):
    """emg (B, C, T) and the first pose (B, J) -> (B, 250, J)."""

    def __init__(self):
        super().__init__()
        layers, size = [], CHANNELS
        for kernel, stride, tds, blocks in stages():
            layers += [nn.Conv1d(size, WIDE, kernel, stride), nn.ReLU(), Norm(WIDE)]
            layers += [Block(tds) for _ in range(blocks)]
            size = WIDE
        self.encoder = nn.Sequential(*layers)
        self.out = nn.Linear(WIDE, FEATURES)
        self.lstm = nn.LSTM(FEATURES + JOINTS, HIDDEN, MODEL.layers, batch_first=True)
        self.head = nn.Linear(HIDDEN, JOINTS)

    def forward(self, emg, pose):
        frames = self.out(self.encoder(emg).transpose(1, 2)).transpose(1, 2)
        frames = functional.interpolate(frames, STEPS, mode="linear", align_corners=True)
        state, poses = None, []
        for n in range(STEPS):
            hidden, state = self.lstm(torch.cat([frames[..., n], pose], 1)[:, None], state)
            change = self.head(functional.leaky_relu(hidden[:, 0], MODEL.slope))
            pose = pose + MODEL.output_scale * change
            poses.append(pose)
        return torch.stack(poses, 1)


def prepare(batch, compiled=False, device="cpu"):
    """(a training step, what makes name -> what else can be timed, facts)."""
    emg = torch.randn(batch, CHANNELS, TIME, device=device)
    poses = torch.randn(batch, STEPS, JOINTS, device=device)
    network = Network().to(device)
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step():
        optimizer.zero_grad()
        loss = (run(emg, poses[:, 0]) - poses).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def others():
        a = torch.ones(SQUARE, SQUARE)
        return {"product": lambda: a @ a}

    return step, others, {"parameters": sum(p.numel() for p in network.parameters())}
