"""Resume: the state of a Lightning training that checkpoints of Lightning lack."""
