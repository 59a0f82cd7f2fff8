"""Sources, manifests, crops and damage: where training and test material comes from."""
