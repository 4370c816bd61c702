"""So that ``python -m sv_utils.bench`` runs the benchmarks."""

from sv_utils.bench import main

raise SystemExit(main())
