"""Path-traced scenes, the third source of the synthetic brackets. They need packages that the rest of the project does not."""
