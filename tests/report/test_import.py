import subprocess
import sys


def test_a_table_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from hiresnet_graph.report import summarize, to_markdown\n"
        "from hiresnet_graph.report import to_json\n"
        "from hiresnet_graph.train import Recipe, read_record\n"
        "from tests.report.studies import Net, study\n"
        "from hiresnet_graph.report import make_report\n"
        "to_json(make_report(study(Net('a', (90.0,)))))\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'statsmodels', 'optuna', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0
