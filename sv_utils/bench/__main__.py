"""TODO."""

from sv_utils.bench import main

raise SystemExit(main())
