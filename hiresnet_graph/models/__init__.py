"""Networks as models with the names and methods of timm: `create_model`, `list_models`, features by name."""

from hiresnet_graph.models.create import create_model, list_models
from hiresnet_graph.models.levels import FeatureInfo
from hiresnet_graph.models.model import FeatureModel, ImageModel

__all__ = ["FeatureInfo", "FeatureModel", "ImageModel", "create_model", "list_models"]
