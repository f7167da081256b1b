"""Bodies of requests and answers. They import neither FastAPI nor torch, so that the client shares them."""
