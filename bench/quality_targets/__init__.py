"""What the bundled priors reach on held-out pictures, beside baselines, held against the bars of the project."""
