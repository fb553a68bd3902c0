"""Point-set losses that plug into the point-cloud completion codebases people already have."""
