import subprocess
import sys


def test_enumerating_and_reporting_do_not_import_torch() -> None:
    code = (
        "import sys, hiresnet_graph as hrg\n"
        "from hiresnet_graph.report import summarize, to_markdown\n"
        "from hiresnet_graph.sweep import enumerate_variants\n"
        "from hiresnet_graph.train import Recipe, read_record\n"
        "assert len(enumerate_variants(hrg.load('hiresnet18'), 'all')) == 64\n"
        "assert 'torch' not in sys.modules\n"
        "from hiresnet_graph.sweep import Interrupted, ablate\n"
        "from hiresnet_graph.train import train\n"
        "assert 'torch' in sys.modules and callable(ablate) and callable(train)\n"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0
