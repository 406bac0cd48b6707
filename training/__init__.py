"""How the bundled priors were trained and their presets found. This folder is no part of the installed package.

python -m training.train photo --photos FOLDER --run FOLDER --hours 2     trains a prior
python -m training.preset_sweep photo --photos FOLDER                     finds its presets, ccfast/presets/presets.json
"""
