"""Random numbers that depend on what they are for, and on nothing else that is drawn."""

from __future__ import annotations

import hashlib

import torch


def number(seed: int, stream: str, epoch: int) -> int:
    """A number for one use of chance: streams differ by name, so that a new one changes no other."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    """A generator of the CPU that starts at this number; what it gives is the same on every device."""
    return torch.Generator().manual_seed(number(seed, stream, epoch))
