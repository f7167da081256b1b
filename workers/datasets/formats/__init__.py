"""The dataset formats that Fovea reads, one module per format; `catalog` lists them and finds the one of an archive."""
