"""`python -m pack_models.ageing`: the studies beside PyBaMM and measured cells."""

import sys

from pack_models.ageing.study import main

if __name__ == "__main__":
    sys.exit(main())
