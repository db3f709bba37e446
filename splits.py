"""Which image files are kept for validation: one rule, shared by everything that makes training data."""

import re
import zlib
from pathlib import Path


def in_validation(path):
    """Whether radiance from this image file is for validation alone: about one name in five, by the name alone.

    path: of the file, or its name with the suffix. Digits beside letters do not count, so numbered pictures of one place stay together.
    Returns: bool, the same on every machine and whatever else lies in the folder.
    """
    stem = Path(path).stem
    name = re.sub(r"\d", "", stem) or stem
    return zlib.crc32(name.encode()) % 5 == 0
