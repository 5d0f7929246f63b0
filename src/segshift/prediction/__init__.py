"""From trained networks and new images to masks that open beside the images."""

from segshift.prediction.procedure import predict

__all__ = ["predict"]
