"""MLflow's runs, found again by content; one learner per model; what a dead one left, put to rest."""
