"""``python -m ota``."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["tuf-client"]:
        # started hundreds of times by the conformance suite: skip what it does not need
        from .tuf_client import main as tuf_main

        sys.exit(tuf_main(sys.argv[2:]))
    from .cli import main

    main()
