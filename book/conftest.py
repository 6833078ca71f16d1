"""`make notebooks` runs the chapters again; here their outputs get a tolerance for numbers."""

# Chapters inherit the folder that matplotlib finds for itself here where the usual one cannot be
# written, and its list of fonts; else it writes to their stderr.
import matplotlib.font_manager  # noqa: F401
from close_text import CloseText
from nbval.plugin import IPyNbCell


def tolerant(sanitize):
    """Wrap nbval's last step before it compares two outputs."""

    def sanitize_output(output):
        clean = sanitize(output)
        return CloseText(clean) if isinstance(clean, str) else clean

    return sanitize_output


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, IPyNbCell):
            item.sanitize = tolerant(item.sanitize)
