"""Steps of a PretrainJob, one module each."""
