"""Path-traced scenes, the third source of the synthetic brackets. They need packages that the project itself does not."""
