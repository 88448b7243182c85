"""The files of the pages: ours from this package, Leaflet's from its own."""

from importlib.resources import files

_MEDIA = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_OURS = ("style.css", "common.js", "list.js", "slide.js", "overlay.js", "regions.js", "survival.js")
_LEAFLET = ("leaflet.js", "leaflet.css")


def page_files() -> dict[str, tuple[bytes, str]]:
    """Return every file that the pages need, by its address.

    Returns
    -------
    dict of str to (bytes, str)
        Content and media type.
    """
    ours = files("pathoml.viewer") / "static"
    leaflet = files("xstatic.pkg.leaflet") / "data"
    addresses = {"/": ours / "list.html", "/slide": ours / "slide.html"}
    addresses |= {f"/static/{name}": ours / name for name in _OURS}
    addresses |= {f"/static/{name}": leaflet / name for name in _LEAFLET}
    return {
        address: (source.read_bytes(), _MEDIA[source.name.rpartition(".")[2]]) for address, source in addresses.items()
    }
