"""The quality that the bundled priors reach on held-out pictures, beside baselines and the targets of the project."""
