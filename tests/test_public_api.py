"""What `import pathoml` offers."""

import subprocess
import sys

import pathoml


def test_every_public_name_loads_and_is_no_module():
    for name in pathoml.__all__:
        assert type(getattr(pathoml, name)).__name__ != "module", name


def test_public_names_are_sorted_and_each_has_a_home():
    assert pathoml.__all__ == sorted(pathoml.__all__)
    assert sorted(pathoml._HOMES) == pathoml.__all__


def test_importing_pathoml_loads_no_heavy_library():
    heavy = ("torch", "pandas", "numpy", "matplotlib")
    code = f"import sys, pathoml, pathoml.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
