"""What the machine does: scalar expressions over loop indices; knows nothing of graphs."""
