"""Training by recipe, resumable; sharpness-aware minimisation."""
