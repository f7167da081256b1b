"""`fovea demo`: the whole loop, from images in a zip to labels over HTTP, on data that travels in a dependency."""

from app.demo.run import run_demo

__all__ = ["run_demo"]
