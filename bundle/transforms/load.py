"""LoadScansd: read a subject's scans, checked and repaired."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor, NibabelReader
from monai.transforms import LoadImage, MapTransform
from monai.utils import ensure_tuple

from bundle.data.background import Background
from bundle.data.checks import Header, check_header, check_image, check_label, check_mask, load_nifti
from bundle.data.scan_file import ScanFile, slabs
from bundle.errors import InputError


class LoadScansd(MapTransform):
    """Replace paths by images: `MetaTensor` (1, X, Y, Z), float32, on the file's own grid and orientation.

    An image of more than `AT_ONCE` voxels stays in its file: it is checked slab by slab, and becomes a `ScanFile`.

    A scan is given its plain form, see `check_image`; a background
    other than a constant 0 is kept under "background", by key.

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
            try:
                image = ScanFile(path, header) if len(slabs(header.shape)) > 1 else self.reader(path)
                said, unusable, background = check(key, image, header, path)
            except (EOFError, OSError, zlib.error) as error:
                raise InputError(f"cannot be read to its end ({error})", "Copy or download it again", path) from error
            item["warnings"] += [*header.notes, *said]
            item[key] = image
            if background is not None and (background.offset or background.noise):
                item["background"] = {**item.get("background", {}), key: background}
            if unusable:
                del item[key]
        return item


def check(
    key: Hashable, image: MetaTensor | ScanFile, header: Header, path: str
) -> tuple[list[str], bool, Background | None]:
    """Check an image's voxels, repair them and remove a scan's background.

    Returns:
        Warnings, whether the image cannot be used, and a scan's background.
    """
    # of the tensor the same memory, so that repairs reach it
    parts: Iterable[np.ndarray] = image if isinstance(image, ScanFile) else [image.as_tensor()[0].numpy()]
    if key == "label":
        check_label(parts, path)
        return [], False, None
    if key == "mask":
        fault = check_mask(parts, header.voxel_ml, path)
        return ([fault] if fault else []), fault is not None, None
    lines, background = check_image(parts, path)
    if isinstance(image, ScanFile):
        image.background = background
    else:
        for voxels in parts:
            background.remove(voxels)
    return lines, False, background


class _Reader(NibabelReader):
    """The affine as nibabel reads it: where pixdim disagrees, MONAI takes another, even a qform that is not set."""

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        self.filenames = ensure_tuple(data)
        return load_nifti(self.filenames[0])
