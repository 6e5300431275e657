"""Systems that the method is compared with: one module each, same artefacts as our own."""
