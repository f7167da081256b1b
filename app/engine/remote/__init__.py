"""One engine process that has the device, for all HTTP processes of a machine. Images and outputs use shared memory.

`server.py` runs in the engine process; `connection.py`, `remote_lane.py` and `remote_models.py` in an HTTP process.
"""
