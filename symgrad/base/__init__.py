"""What every layer may use: settings, dtypes, sizes, errors, origins."""
