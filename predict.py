"""Segment new images: `python predict.py checkpoint=runs/NAME/TIME input=FOLDER output=FOLDER`.

The input is a folder, a manifest, one file or a DICOM series; masks have its geometry and format.
"""

from segshift.cli import predict

if __name__ == "__main__":
    predict()
