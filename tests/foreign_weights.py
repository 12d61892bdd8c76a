"""Networks of torchvision and timm, and their tensors under the names of the shipped specs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

State = Mapping[str, torch.Tensor]


def _renamed(state: State, rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    return {rename(name): value for name, value in state.items()}


def _replaced(name: str, pairs: Mapping[str, str]) -> str:
    for old, new in pairs.items():
        name = name.replace(old, new)
    return name


def _vit(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A class token and positions without the axis of samples."""
    state["class_token.weight"] = state["class_token.weight"][0]
    state["positions.weight"] = state["positions.weight"][0]
    return state


def _of_timm(state: State, pairs: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Tensors of a network of blocks with a norm and a linear head."""

    def rename(name: str) -> str:
        if name.startswith("norm."):
            return f"head.{name}"
        if name.startswith("head."):
            return f"head.linear.{name.removeprefix('head.')}"
        return _blocks(_replaced(name, pairs))

    return _renamed(state, rename)


def torchvision_vit(state: State) -> dict[str, torch.Tensor]:
    pairs = {
        "conv_proj": "patches.conv",
        "encoder.pos_embedding": "positions.weight",
        "encoder.ln.": "head.norm.",
        "heads.head": "head.linear",
        "encoder.layers.encoder_layer_": "encoder.",
        "self_attention.in_proj_": "attention.qkv.",
        "self_attention.out_proj": "attention.projection",
        "ln_": "norm",
        "mlp.0": "linear1",
        "mlp.3": "linear2",
    }

    def rename(name: str) -> str:
        name = "class_token.weight" if name == "class_token" else _replaced(name, pairs)
        return _blocks(name)

    return _vit(_renamed(state, rename))


def timm_vit(state: State) -> dict[str, torch.Tensor]:
    pairs = {
        "cls_token": "class_token.weight",
        "pos_embed": "positions.weight",
        "patch_embed.proj": "patches.conv",
        "blocks.": "encoder.",
        "attn.": "attention.",
        "proj.": "projection.",
        "mlp.fc": "linear",
    }

    return _vit(_of_timm(state, pairs))


def timm_mixer(state: State) -> dict[str, torch.Tensor]:
    pairs = {
        "stem.proj": "patches.conv",
        "blocks.": "mixer.",
        "mlp_tokens.fc": "tokens.linear",
        "mlp_channels.fc": "linear",
    }

    return _of_timm(state, pairs)


def torchvision_swin(state: State) -> dict[str, torch.Tensor]:
    pairs = {
        "attn.relative_position_bias_table": "attention.product.weight",
        "attn.": "attention.",
        "proj.": "projection.",
        "mlp.0": "linear1",
        "mlp.3": "linear2",
        "reduction": "linear",
    }

    def rename(name: str) -> str:
        if name.startswith("norm."):
            return f"head.{name}"
        if name.startswith("head."):
            return f"head.linear.{name.removeprefix('head.')}"
        _, part, rest = name.split(".", 2)
        if part == "0":
            return "patches." + _replaced(rest, {"0.": "conv.", "2.": "norm."})
        stage, is_merging = divmod(int(part) + 1, 2)
        rest = _replaced(rest, pairs)
        return f"merge{stage}.{rest}" if is_merging else _blocks(f"stage{stage}.{rest}")

    kept = {name: value for name, value in state.items() if not name.endswith("relative_position_index")}
    return _renamed(kept, rename)


def torchvision_convnext(state: State) -> dict[str, torch.Tensor]:
    pairs = {
        "layer_scale": "layer_scale.weight",
        "block.0": "conv",
        "block.2": "norm",
        "block.3": "linear1",
        "block.5": "linear2",
    }

    def rename(name: str) -> str:
        if name.startswith("classifier."):
            return "head." + _replaced(name.removeprefix("classifier."), {"0.": "norm.", "2.": "linear."})
        _, part, rest = name.split(".", 2)
        stage, is_down = divmod(int(part) + 1, 2)
        if is_down:
            place = "stem" if stage == 0 else f"down{stage}"
            order = {"0.": "conv.", "1.": "norm."} if stage == 0 else {"0.": "norm.", "1.": "conv."}
            return f"{place}.{_replaced(rest, order)}"
        return _blocks(f"stage{stage}.{_replaced(rest, pairs)}")

    found = _renamed(state, rename)
    return {name: value.flatten() if name.endswith("layer_scale.weight") else value for name, value in found.items()}


def _blocks(name: str) -> str:
    """`encoder.0.norm1.weight` -> `encoder.block1.norm1.weight`."""
    first, second, *rest = name.split(".")
    return ".".join([first, f"block{int(second) + 1}" if second.isdigit() else second, *rest])
