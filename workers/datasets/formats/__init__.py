"""The layouts of data sets Fovea reads, one file each; `catalog` lists them and finds which one an archive has."""
