"""One session learned: the one LightningModule, its rows in their order, and where it stands when it is killed."""
