"""Network structures by catalogue name: torchvision's and our own."""
