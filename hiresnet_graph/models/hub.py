"""Models on the Hugging Face hub, with the methods of its `ModelHubMixin`. Requires the package huggingface_hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from hiresnet_graph.errors import MissingToolError
from hiresnet_graph.models.create import create_model
from hiresnet_graph.models.model import ImageModel
from hiresnet_graph.train.pretrained import CONFIG, WEIGHTS, save_pretrained

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
except ImportError:
    raise MissingToolError(
        "models of the hub require the package huggingface_hub. Install it: python -m pip install huggingface_hub."
    ) from None


class HubModel(  # type: ignore[misc]  # the mixin has its own arguments for `save_pretrained`
    ModelHubMixin,
    ImageModel,
    library_name="hiresnet_graph",
    tags=["hiresnet_graph", "image-classification"],
):
    """A model with `from_pretrained`, `save_pretrained` and `push_to_hub` as the hub's own models have them.

    The files are those of `hiresnet_graph.save_pretrained`, and a model card, `README.md`.
    """

    @classmethod
    def of(cls, model: ImageModel) -> Self:
        """A model of `create_model`; both have the same modules."""
        return cls(model.arch, model.network)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_pretrained(self, save_directory, arch=self.arch)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Self:
        """The model in a folder or a repository; `num_classes` and `in_chans` are those of `create_model`."""
        folder = model_id
        if not os.path.isdir(model_id):
            folder = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[CONFIG, WEIGHTS],
            )
        model = create_model(folder, pretrained=True, **model_kwargs)
        assert isinstance(model, ImageModel)
        return cls.of(model)
