"""Steps of an AlignJob, one module each."""
