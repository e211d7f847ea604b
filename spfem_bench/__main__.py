"""``python -m spfem_bench``."""

from spfem_bench.cli.main import main

main(prog_name="spfem-bench")
