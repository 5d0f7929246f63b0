"""Other people's layouts to cases for a manifest. Reads descriptions and headers, no pixels."""

from segshift.cohort.importers.bids import import_bids
from segshift.cohort.importers.dicom import import_dicom
from segshift.cohort.importers.folders import import_folder
from segshift.cohort.importers.imported import Imported, parse_structures
from segshift.cohort.importers.msd import import_msd
from segshift.cohort.importers.naming import renamed
from segshift.cohort.importers.nnunet import import_nnunet
from segshift.cohort.importers.union import concatenate

__all__ = [
    "Imported",
    "concatenate",
    "import_bids",
    "import_dicom",
    "import_folder",
    "import_msd",
    "import_nnunet",
    "parse_structures",
    "renamed",
]
