"""``python -m cowstorage init``: the scripts of a part without a buildout."""

from __future__ import annotations

import sys

from cowstorage.init import main

if __name__ == "__main__":
    sys.exit(main())
