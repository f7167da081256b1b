"""One process that has the device, for all HTTP processes of a machine: images and outputs go through shared memory.

`server.py` is the engine's end of it, `connection.py`, `remote_lane.py` and `remote_models.py` are an HTTP process's.
"""
