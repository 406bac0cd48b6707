"""The quality of the samplers against exact posteriors, on photographs, and by the published protocol.

python -m bench.quality.posterior        priors with a closed form, bench/results/posterior.json
python -m bench.quality.photographs      the bundled priors, bench/results/photographs_<prior>.json
python -m bench.quality.published_protocol --weights FILE --images FOLDER    a public checkpoint
"""
