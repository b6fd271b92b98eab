"""The studies folder as MONAI Label's datastore: subjects in folders, nothing outside, synthetic volumes marked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException

from bundle.data.checks import check_header
from bundle.data.naming import OWN_RESULTS, SCAN_SUFFIXES
from bundle.errors import InputError
from scripts.monai_label.lib.refusals import Conflict, NotNifti, OutsideStudies, UnknownImage


class Studies(LocalDatastore):
    """The NIfTI files of a folder, at any depth; an image's id is its path in the folder without .nii or .nii.gz.

    MONAI Label's own `LocalDatastore` sees one flat folder, takes any path for an id and overwrites what is there.
    Labels, which clients may save, go to the hidden folder ``.labels``, where they cannot be taken for scans.

    Args:
        folder: the studies folder; symbolic links in it that lead out of it are not followed.
    """

    def __init__(self, folder: str) -> None:
        self.root = Path(os.path.realpath(folder))
        patterns = [f"*{suffix}" for suffix in SCAN_SUFFIXES]
        super().__init__(str(self.root), labels_dir=".labels", extensions=patterns, auto_reload=False)

    def scan(self, name: str) -> Path:
        """The file of an image, by its id or by its path.

        Raises:
            OutsideStudies: the name, or a link that it names, leads out of the folder.
            UnknownImage: there is no such image.
        """
        image_id = self.id_of(name)
        uri = self.get_image_uri(image_id)
        if not uri:
            raise UnknownImage("is no image of the studies folder", "GET /datastore/?output=all lists them", name)
        return Path(uri)

    def id_of(self, name: str) -> str:
        """The id that an image of that id or path has or would have; OutsideStudies if that leads out of the folder."""
        image_id = re.sub(r"\.nii(\.gz)?$", "", self.place(name).relative_to(self.root).as_posix())
        for suffix in SCAN_SUFFIXES:
            self.place(image_id + suffix)  # which refuses a link that leads out
        return image_id

    def place(self, name: str) -> Path:
        """The path of a name in the folder; OutsideStudies if it has none."""
        path = Path(os.path.normpath(self.root / name))
        if "\0" in name or not path.is_relative_to(self.root) or not self.holds(path):
            remedy = "Name an image of the studies folder by its id or path"
            raise OutsideStudies("is not in the studies folder", remedy, name.replace("\0", "?"))
        return path

    def holds(self, path: str | Path) -> bool:
        """Whether a path lies in the folder once all symbolic links are followed."""
        return Path(os.path.realpath(path)).is_relative_to(self.root)

    def keep(self, image_id: str, file: Path, info: dict[str, Any]) -> None:
        """Put a copy of a file into the folder, whole or not at all; an image of that id is replaced."""
        path = self.place(image_id + suffix_of(file))
        aside = path.with_name(f".{path.name}.partial")
        try:
            shutil.copyfile(file, aside)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        self.refresh()
        self.update_image_info(image_id, info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Keep an uploaded scan.

        Raises:
            NotNifti: by its name.
            InputError: it cannot be used, as `check_header` tells.
            Conflict: there is an image of that id, which is never overwritten.
            OutsideStudies: the id is no path of a file that may be there.
        """
        file = Path(image_filename)
        try:
            if not file.name.endswith(SCAN_SUFFIXES):
                raise NotNifti("is no NIfTI file by its name", "Upload a .nii or .nii.gz file", image_id)
            path = self.place(image_id + suffix_of(file))
            if any(part.startswith(".") for part in path.relative_to(self.root).parts):
                raise OutsideStudies("is hidden", "Choose an id without names that begin with a dot", image_id)
            if image_id in self.list_images():
                raise Conflict("is there already", "Choose another id, or remove that image first", image_id)
            try:
                check_header(file)
            except InputError as error:
                raise InputError(error.fault, error.remedy, image_id) from error
            path.parent.mkdir(parents=True, exist_ok=True)
            self.keep(image_id, file, image_info)
        finally:
            file.unlink(missing_ok=True)  # the server does so only after an answer without a fault
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label of an image under a tag, which is a folder's name: InputError if it cannot be one."""
        if not re.fullmatch(r"\w[\w.-]*", label_tag):
            raise InputError(f"the tag {label_tag!r} cannot be used", "Use letters, digits, _, - and .")
        if image_id in self.list_images():
            Path(self._datastore.label_path(label_tag), image_id).parent.mkdir(parents=True, exist_ok=True)
        saved: str = super().save_label(image_id, label_filename, label_tag, label_info)
        return saved

    def get_image_uri(self, image_id: str) -> str:
        """The path of an image, "" where there is none."""
        uri: str = super().get_image_uri(image_id)
        return uri if uri and self.holds(uri) else ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image; "synthetic" is told by its name, so that nothing can unsay it."""
        if image_id not in self.list_images():
            raise ImageNotFoundException(f"Image {image_id} not found")
        return {**super().get_image_info(image_id), "synthetic": is_synthetic(image_id)}

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """The images that may be offered for annotation: no synthetic ones."""
        return [image for image in super().get_unlabeled_images(label_tag, labels) if not is_synthetic(image)]

    def _list_files(self, path: str, patterns: Sequence[str]) -> dict[str, str]:
        """Files below a folder by their paths in it; without hidden ones, labels and links that lead out."""
        found, labels = {}, Path(self._datastore.label_path(None))
        for folder, below, names in os.walk(path):
            below[:] = [name for name in below if not name.startswith(".") and Path(folder, name) != labels]
            for file in (Path(folder, name) for name in names):
                if file.name.endswith(SCAN_SUFFIXES) and not file.name.startswith(".") and self.holds(file):
                    name = file.relative_to(path).as_posix()
                    found[name] = name
        return found


def is_synthetic(image_id: str) -> bool:
    """Whether an image was made by this bundle, by its name; what `find_subjects` never takes for a scan."""
    return image_id.lower().endswith(OWN_RESULTS)


def suffix_of(file: Path) -> str:
    """.nii.gz or .nii."""
    return next(suffix for suffix in SCAN_SUFFIXES if file.name.endswith(suffix))
