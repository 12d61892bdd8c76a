"""Grad-CAM of a block with Captum (`pip install captum`): `python examples/grad_cam.py`."""

import torch
from captum.attr import LayerAttribution, LayerGradCam

import hiresnet_graph as hrg


def main() -> None:
    """Where the features of `stage3.block2` speak for a class, as a map of the size of the image."""
    model = hrg.create_model("hiresnet18@full", width=8).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = LayerGradCam(model, model.get_submodule("stage3.block2")).attribute(images, target=3)
    assert isinstance(maps, torch.Tensor)  # as many as layers
    large = LayerAttribution.interpolate(maps, (32, 32))
    print(f"stage3.block2: maps {tuple(maps.shape)}, for the image {tuple(large.shape)}")
    print(f"most important pixel of the first image: {divmod(int(large[0, 0].argmax()), 32)}")


if __name__ == "__main__":
    main()
