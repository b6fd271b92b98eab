"""Undo what linear interpolation does to the rim of the brain."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform


class RestoreRimd(MapTransform):
    """Divide each volume by the equally interpolated brain mask m where m > 1/2, and set it to 0 elsewhere.

    A volume that is 0 outside the brain fades over one voxel when it is resampled; since the mask fades alike, the
    quotient is the mean of those neighbours that lie in the brain.

    Args:
        keys: volumes ``(C, X, Y, Z)``, 0 outside the brain before they were resampled, changed in place to
            save memory; missing ones are skipped.
        mask: key of m, ``(1, X, Y, Z)``, in [0, 1]; becomes a mask of 0 and 1, uint8.
    """

    def __init__(self, keys: KeysCollection, mask: str = "brain") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.mask = mask

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        share = d[self.mask].as_tensor()[0]
        inside, divisor = share > 0.5, share.clamp(min=0.5)
        for key in self.key_iterator(d):
            for channel in d[key].as_tensor():
                channel.div_(divisor).mul_(inside)
        d[self.mask] = (d[self.mask] > 0.5).byte()
        return d
