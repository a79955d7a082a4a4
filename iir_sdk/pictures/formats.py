"""What a file that PIL cannot read is, by its first bytes, and how to get a picture out of it."""

from __future__ import annotations

from PIL import features

HEAD = 512
"""How many first bytes tell."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_STARTS = (
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL ", "jxl"),
    (b"%PDF", "pdf"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x89HDF", "hdf5"),
    (b"v/1\x01", "exr"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
TIFF_CURE = (
    "it is a TIFF of a kind that PIL cannot read (colour in floats, five bands or more, ...): pip install tifffile "
    "imagecodecs, then pass three bands of tifffile.imread(path) as a uint8 array (H, W, 3), or a grey one (H, W)."
)
_SAY = {
    "empty": "it is empty (0 bytes): copy or download it again.",
    "heic": "it is HEIC: pip install pillow-heif, then call pillow_heif.register_heif_opener() once before this.",
    "avif": "it is AVIF, which PIL reads from Pillow 11.3 on: pip install -U pillow",
    "jxl": "it is JPEG XL: pip install pillow-jxl-plugin, then import pillow_jxl once before this.",
    "dicom": "it is DICOM: pip install pydicom, then pass pydicom.dcmread(path).pixel_array scaled to uint8.",
    "tiff": TIFF_CURE,
    "pdf": "it is PDF: render its pages to pictures first, e.g. with pdf2image.",
    "svg": "it is SVG: render it to PNG first, e.g. with cairosvg.",
    "npy": "it is a numpy file: pass the array, np.load(path).",
    "zip": "it is an archive (ZIP, NPZ, ...): unpack it, and pass one picture of it.",
    "gzip": "it is packed by gzip: unpack it; of a NIfTI volume pass one slice as a uint8 array (H, W).",
    "hdf5": "it is HDF5: pass one of its arrays, read with h5py.",
    "exr": "it is OpenEXR: convert it to PNG, or pass its values as a float array (H, W, 3) in [0, 1].",
    "video": "it is a video: take frames out of it first, e.g. with ffmpeg, and pass those.",
    "page": "it is a web page and no picture, as a failed download leaves it: fetch the picture again.",
}


def why_unreadable(head: bytes) -> str:
    """Half a sentence on what a file with these first bytes is, and the cure; on any other, what PIL could read."""
    return _SAY.get(
        _kind(head), "it is not a picture that PIL can read (PNG, JPEG, TIFF, WebP, ...), or a damaged one."
    )


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    # First, since what stands before it may be the start of another format.
    if head[128:132] == b"DICM":
        return "dicom"
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "" if features.check("avif") else "avif"
        return "heic" if brand in _HEIC else "video"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "page"
    return "svg" if text.startswith((b"<svg", b"<?xml")) and b"svg" in text else ""
