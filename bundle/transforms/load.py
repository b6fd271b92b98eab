"""LoadScansd: read a subject's scans, checked and repaired."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor, NibabelReader
from monai.transforms import LoadImage, MapTransform
from monai.utils import ensure_tuple

from bundle.data.checks import check_header, check_image, check_label, check_mask
from bundle.errors import InputError


class LoadScansd(MapTransform):
    """Replace paths by images: `MetaTensor` (1, X, Y, Z), float32, on the file's own grid and orientation.

    What was repaired or taken for granted is added to the item's "warnings". Under the key "label" whole numbers are
    expected; what lies under "mask" and cannot be a brain mask is taken out of the item, with a warning.

    Args:
        keys: contrasts, "label", "mask".
        allow_missing_keys: whether a subject may lack some of them.

    Raises:
        InputError: on call, where a file cannot be used.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = True) -> None:
        super().__init__(keys, allow_missing_keys)
        # LoadImage makes all the readers that it knows; that for DICOM on a GPU complains where pydicom is installed
        logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "NvImgCodecPydicomReader", UserWarning)
            reader = _Reader(squeeze_non_spatial_dims=True)
            self.reader = LoadImage(reader=reader, image_only=True, dtype=np.float32, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Item with paths -> item with images."""
        item = dict(data)
        item["warnings"] = list(item.get("warnings", []))
        for key in self.key_iterator(item):
            path = item[key]
            header = check_header(path)
            image = self._read(path)
            item["warnings"] += header.notes
            voxels = image.as_tensor()[0].numpy()  # the same memory, so that repairs reach the image
            unusable = None
            if key == "label":
                check_label(voxels, path)
            elif key == "mask":
                unusable = check_mask(voxels, header.voxel_ml, path)
            else:
                item["warnings"] += check_image(voxels, path)
            if unusable is None:
                item[key] = image
            else:
                item["warnings"].append(unusable)
                del item[key]
        return item

    def _read(self, path: str) -> MetaTensor:
        try:
            return self.reader(path)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"cannot be read to its end ({error})", "Copy or download it again", path) from error


class _Reader(NibabelReader):
    """The affine as nibabel reads it: where pixdim disagrees, MONAI takes another, even a qform that is not set."""

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        self.filenames = ensure_tuple(data)
        return nibabel.load(self.filenames[0])
