"""Over-the-air updates: artifacts, signing, campaigns. Time and bytes come in as arguments."""
