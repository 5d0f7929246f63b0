"""segshift: train segmentation networks and tell how well they will do at the next hospital."""

__version__ = "0.1.0"
