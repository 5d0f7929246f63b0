"""A run as a file that other software opens: `torch.export`, ONNX or a MONAI bundle.

What is exported takes a window of preprocessed voxels and gives probabilities. How to preprocess,
to join windows and to decode travels with it as plain JSON (`export.description`).
"""

from segshift.export.writing import FORMATS, export

__all__ = ["FORMATS", "export"]
