"""The program `torchserve`: its flags, its configuration file, the files it keeps."""
