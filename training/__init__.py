"""The training of the bundled priors and the search for their presets, which the installed package does not contain.

python -m training.train photo --photos FOLDER --run FOLDER --hours 2     trains a prior
python -m training.preset_sweep photo --photos FOLDER                     finds its presets, ccfast/presets/presets.json
"""
