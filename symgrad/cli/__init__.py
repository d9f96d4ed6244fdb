"""The command line: symgrad demo, saliency, explain, doctor, size."""
