"""Reports of what organisations did, as pages, pictures and documents."""
