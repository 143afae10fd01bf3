"""Videos without torchvision: PyAV decodes, torch prepares the frames as the stock processors do."""
