"""Finds out what kind of file an image is from its first bytes. The name counts only for RAW files that are TIFF inside.

There are few reasons why a file cannot be read, and each has one message: missing, unreadable (permission, folder, disk), not an image, unsupported,
too large, damaged. Readers raise Unsupported with the whole message; any other error in a reader means that the file is damaged.
"""

import errno
from pathlib import Path

from common import in_words

LARGEST = 2 ** 28           # pixels of the largest image that is read, so that a false header cannot take all memory
LONGEST = 2 ** 15 - 2       # longest side of an image that is read, pixels: OpenCV samples no longer one
SUFFIXES = {                # kinds that are read, and their suffixes
    "TIFF": (".tif", ".tiff"), "PNG": (".png",), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "WebP": (".webp",), "Radiance": (".hdr", ".pic"),
    "RAW": (".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr", ".fff", ".erf", ".kdc",
            ".dcr", ".mef", ".mos", ".mrw", ".iiq", ".rwl", ".x3f", ".gpr")}
PHOTOGRAPHS = ("TIFF", "PNG", "JPEG", "WebP", "RAW")
SIGNATURES = (              # (offset, bytes, kind)
    (0, b"\xff\xd8\xff", "JPEG"), (0, b"\x89PNG\r\n\x1a\n", "PNG"), (8, b"WEBP", "WebP"), (0, b"#?RADIANCE", "Radiance"), (0, b"#?RGBE", "Radiance"),
    (8, b"CR\x02", "RAW"), (4, b"ftypcrx ", "RAW"), (0, b"FUJIFILMCCD-RAW", "RAW"), (0, b"IIRO", "RAW"), (0, b"IIRS", "RAW"), (0, b"MMOR", "RAW"),
    (0, b"IIU\0", "RAW"), (0, b"FOVb", "RAW"), (0, b"\0MRM", "RAW"), (6, b"HEAPCCDR", "RAW"),
    (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"MM\0+", "TIFF"),
    (0, b"GIF8", "GIF"), (0, b"\x76\x2f\x31\x01", "OpenEXR"), (0, b"8BPS", "Photoshop"), (0, b"%PDF", "PDF"),
    (0, b"\xff\x0a", "JPEG XL"), (4, b"JXL ", "JPEG XL"), (4, b"jP  ", "JPEG 2000"), (4, b"ftypavif", "AVIF"), (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"), (4, b"ftypmif1", "HEIC"))


class Unsupported(ValueError):
    """An intact image of a kind that is not read, or too large. The message says what was found and what to do."""


def kind_of(path):
    """Finds the kind of a file from its content. Returns: a key of SUFFIXES, the name of a kind that is not read, or "".

    Raises: OSError; Unsupported for a pipe or a device.
    """
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise Unsupported(f"{instead_of('file', path)}; name a file")       # opening a pipe would wait until something is written into it
    with open(path, "rb") as file:
        head = file.read(32)
    kind = next((kind for offset, signature, kind in SIGNATURES if head[offset:].startswith(signature)), "")
    return "RAW" if kind == "TIFF" and Path(path).suffix.lower() in SUFFIXES["RAW"] else kind


def kind_to_read(path):
    """Finds the kind of an image file that can be read. Returns: a key of SUFFIXES. Raises: Unsupported; ValueError for an empty file; OSError."""
    kind = kind_of(path)
    if kind not in SUFFIXES:
        if Path(path).stat().st_size == 0:
            raise ValueError("the file is empty")
        raise Unsupported(f"{f'{kind} files are not read' if kind else 'this is not an image'}; give {', '.join(SUFFIXES)}")
    return kind


def check_size(width, height):
    """Checks the size of an image. Raises: Unsupported if it is too large; ValueError for an image that has no pixels."""
    if width <= 0 or height <= 0:
        raise ValueError(f"it says {width}x{height} pixels")
    if width * height > LARGEST or max(width, height) > LONGEST:
        raise Unsupported(f"it says {width}x{height} pixels, more than are read ({LARGEST // 10 ** 6} million, {LONGEST} a side); make it smaller")


def instead_of(wanted, path):
    """Says what is at a path instead of what is wanted there. wanted: what it should be, such as "file" or "folder"."""
    if Path(path).exists():
        return f"a {'folder' if Path(path).is_dir() else 'file' if Path(path).is_file() else 'pipe or device'}, not a {wanted}"
    return f"a broken link, not a {wanted}" if Path(path).is_symlink() else f"no such {wanted}"


def check_folder(path, cure):
    """Checks that a folder can be opened, because Path.glob would silently find nothing. Raises: FileNotFoundError with the cure if it is missing; OSError."""
    if not Path(path).is_dir():
        raise FileNotFoundError(f"{path}: {instead_of('folder', path)}; {cure}")
    next(Path(path).iterdir(), None)


def in_a_sentence(path, error):
    """Turns a reader's error into a message for the user. error: any exception. Returns: FileNotFoundError or ValueError, to be raised."""
    code = getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{path}: no such file; check the name")
    if isinstance(error, Unsupported):
        return ValueError(f"{path}: {error}")
    if in_words(error).startswith("out of memory"):
        return ValueError(f"{path}: too large for the memory of this machine; make it smaller")
    if Path(path).is_dir():
        return ValueError(f"{path}: this is a folder; name a file")
    if code in (errno.EACCES, errno.EPERM):
        return ValueError(f"{path}: may not be opened; allow it to be read")
    if code:
        return ValueError(f"{path}: could not be read from the disk ({error.strerror}); try again, or copy it to another disk")
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return ValueError(f"{path}: damaged ({reason}); copy it again, or export it again")
