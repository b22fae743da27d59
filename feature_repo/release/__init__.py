"""What a release is: the contract between who exports it, who records it and who serves it."""
