"""Looking at a folder of files and proposing the dataset declaration that fits them."""
