"""How often tests repeat things. Lowering a number here needs a reason in the change's note."""

RANDOM_KILLS = 10
"""Seeded random moments at which `pathoml run` is killed, besides once inside each stage."""

KILL_SEED = 4711

EXTRACTION_KILLS = 200
"""Seeded random moments at which an extraction is killed."""

BAG_WRITE_KILLS = 20
"""Kills while a bag is being written."""

BIT_FLIPS = 40
"""Bytes of a bag that are altered, one at a time."""

SHUFFLES = 5
"""Deals of shuffled survival against which the demo's maps are held, for each evaluation seed."""

MUTATED_SLIDES = 5_000
"""Broken copies of slides that go through `slide info` and `extract`."""

DRAWN_SLIDES_FOR_DICE = 8
"""Synthetic slides, of seeds used for nothing else, on which the tissue mask is held against the truth."""

ARTEFACTS_OF_EACH_KIND = 8
"""Artefacts of each kind laid over each real specimen."""

ARTEFACT_SEED = 5511
"""Their seed; thresholds were set on others."""

FUSION_SEEDS = (11, 12, 13)
"""Synthetic cohorts on which a fused model has to beat its parts."""

NULL_COHORTS = 200
"""Cohorts without any signal on which the interval of a frozen score and refitted permutations are tried."""

NULL_TABLES = 60
"""Tables of strangers, of each kind, in which nobody is to be called a patient that stands there twice."""
