"""One folder per method; the folder's name is the method's name."""
