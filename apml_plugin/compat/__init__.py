"""Functions of other libraries with their signatures, for code that calls them where these are not installed."""
