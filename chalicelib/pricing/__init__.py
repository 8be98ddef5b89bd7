"""What AWS charges, and what a month comes to: data and pure functions, for the Lambda and for vaultctl alike."""
